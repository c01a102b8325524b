// rcm_pixels: planes of values in [-1, 1] to interleaved bytes.
#include "cuda/runtime/common.cuh"

using namespace rcm;

namespace {

template <class C>
__device__ inline uint8_t level(C v) {
  const double scaled = ((double)v + 1) * 127.5;  // in f64 as on the CPU, for the same bytes
  if (!(scaled > 0)) return 0;                    // also NaN
  return scaled >= 255 ? 255 : (uint8_t)rint(scaled);
}

template <class T>
__global__ void pixels(const T* x, uint8_t* out, int64_t C, int64_t N, int64_t total) {
  await_queued();
  for (int64_t i = blockIdx.x * (int64_t)blockDim.x + threadIdx.x; i < total; i += gridDim.x * (int64_t)blockDim.x) {
    const int64_t b = i / N, at = i % N;
    for (int64_t c = 0; c < C; ++c) out[i * C + c] = level(load_as(x[(b * C + c) * N + at]));
  }
}

}  // namespace

rcm_status rcm_pixels(const void* x, void* out, int64_t B, int64_t C, int64_t N, int32_t dtype) {
  return op_call("pixels", [&] {
    need(x, "x");
    need(out, "out");
    size_at_least(B, 0, "B");
    size_at_least(C, 0, "C");
    size_at_least(N, 0, "N");
    const int64_t total = B * N;
    with_dtype(dtype, "dtype", [&](auto t) {
      using T = decltype(t);
      if (total == 0 || C == 0) return;
      const int blocks = (int)(ceil_div(total, 256) < 4096 ? ceil_div(total, 256) : 4096);
      queue_kernel(pixels<T>, blocks, 256, 0, static_cast<const T*>(x), static_cast<uint8_t*>(out), C, N, total);
    });
  });
}
