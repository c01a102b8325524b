// rcm_pixels: planes of values in [-1, 1] to interleaved bytes.
#include "cuda/runtime/common.cuh"
#include "shared/ops/video.h"

namespace rcm::video {
namespace {

template <class C>
__device__ inline uint8_t level(C v) {
  const double scaled = ((double)v + 1) * 127.5;  // in f64 as on the CPU, for the same bytes
  if (!(scaled > 0)) return 0;                    // also NaN
  return scaled >= 255 ? 255 : (uint8_t)rint(scaled);
}

template <class T>
__global__ void pixels_kernel(const T* x, uint8_t* out, int64_t C, int64_t N, int64_t total) {
  await_queued();
  for (int64_t i = blockIdx.x * (int64_t)blockDim.x + threadIdx.x; i < total; i += gridDim.x * (int64_t)blockDim.x) {
    const int64_t b = i / N, at = i % N;
    for (int64_t c = 0; c < C; ++c) out[i * C + c] = level(load_as(x[(b * C + c) * N + at]));
  }
}

}  // namespace

void pixels(const Pixels& a) {
  const int64_t total = a.B * a.N;
  with_dtype(a.dtype, "dtype", [&](auto zero) {
    using T = decltype(zero);
    if (total == 0 || a.C == 0) return;
    const int blocks = (int)(ceil_div(total, 256) < 4096 ? ceil_div(total, 256) : 4096);
    queue_kernel(pixels_kernel<T>, blocks, 256, 0, static_cast<const T*>(a.x), static_cast<uint8_t*>(a.out), a.C, a.N,
                 total);
  });
}

}  // namespace rcm::video
