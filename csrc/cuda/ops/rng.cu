#include "elementwise.cuh"

using namespace rcm;

namespace {

__device__ inline void philox(uint32_t (&c)[4], uint32_t k0, uint32_t k1) {
#pragma unroll
  for (int round = 0; round < 10; ++round) {
    const uint32_t high0 = __umulhi(0xD2511F53u, c[0]), low0 = 0xD2511F53u * c[0], high1 = __umulhi(0xCD9E8D57u, c[2]), low1 = 0xCD9E8D57u * c[2];
    c[0] = high1 ^ c[1] ^ k0;
    c[1] = low1;
    c[2] = high0 ^ c[3] ^ k1;
    c[3] = low0;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
}

__device__ inline double unit(uint32_t r) { return ((double)r + 0.5) * 2.3283064365386962890625e-10; }

// One thread per block of four values, one grid row per output row; `vec`: the four are stored at once.
template <class T>
__global__ void __launch_bounds__(kThreads) normals(T* out, int64_t rows, int64_t n, uint64_t seed, uint64_t stream, uint64_t stream_step, uint64_t first, bool vec) {
  await_queued();
  const int64_t block = (int64_t)blockIdx.x * kThreads + threadIdx.x, i = 4 * block;
  if (i >= n) return;
  const uint64_t at = first + (uint64_t)block;
  for (int64_t row = blockIdx.y; row < rows; row += gridDim.y) {
    const uint64_t key = stream + (uint64_t)row * stream_step;
    T* y = out + row * n + i;
    uint32_t c[4] = {(uint32_t)at, (uint32_t)(at >> 32), (uint32_t)key, (uint32_t)(key >> 32)};
    philox(c, (uint32_t)seed, (uint32_t)(seed >> 32));
    double v[4];
#pragma unroll
    for (int pair = 0; pair < 2; ++pair) {
      double sine, cosine;
      sincospi(2 * unit(c[2 * pair + 1]), &sine, &cosine);
      const double radius = sqrt(-2 * log(unit(c[2 * pair])));
      v[2 * pair] = radius * cosine;
      v[2 * pair + 1] = radius * sine;
    }
    if (vec && i + 4 <= n) {
      store_pack<4>(y, v);
    } else {
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        if (i + j < n) y[j] = store_as<T>(v[j]);
      }
    }
  }
}

}  // namespace

rcm_status rcm_randn(void* out, int64_t rows, int64_t n, int64_t seed, int64_t stream, int64_t stream_step, int64_t offset, int32_t dtype) {
  return gpu_call("randn", [&] {
    need(out, "out");
    size_at_least(rows, 0, "rows");
    size_at_least(n, 0, "n");
    if (offset % 4 != 0) fail(RCM_E_ARG, "offset: want a multiple of 4, got %lld", (long long)offset);
    with_dtype(dtype, "dtype", [&](auto zero) {
      using T = decltype(zero);
      if (rows == 0 || n == 0) return;
      const dim3 grid((unsigned)grid_size(ceil_div(ceil_div(n, 4), kThreads)), (unsigned)std::min<int64_t>(rows, 65535));
      const bool vec = pack_aligned<4, T>({out}) && (rows == 1 || n % 4 == 0);
      queue_kernel(normals<T>, grid, kThreads, 0, static_cast<T*>(out), rows, n, (uint64_t)seed, (uint64_t)stream,
                   (uint64_t)stream_step, (uint64_t)(offset / 4), vec);
    });
  });
}
