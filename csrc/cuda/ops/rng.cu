#include "shared/ops/rng.h"

#include "elementwise.cuh"

namespace rcm::rng {
namespace {

__device__ inline void philox(uint32_t (&c)[4], uint32_t k0, uint32_t k1) {
#pragma unroll
  for (int round = 0; round < 10; ++round) {
    const uint32_t high0 = __umulhi(0xD2511F53u, c[0]), low0 = 0xD2511F53u * c[0], high1 = __umulhi(0xCD9E8D57u, c[2]),
                   low1 = 0xCD9E8D57u * c[2];
    c[0] = high1 ^ c[1] ^ k0;
    c[1] = low1;
    c[2] = high0 ^ c[3] ^ k1;
    c[3] = low0;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
}

__device__ inline double unit(uint32_t r) { return ((double)r + 0.5) * 2.3283064365386962890625e-10; }

// One thread per block of four numbers, one grid row per output row. `vec`: the four may be stored as one pack.
template <class T>
__global__ void __launch_bounds__(kThreads)
    normals_kernel(T* out, int64_t rows, int64_t n, uint64_t seed, uint64_t stream, uint64_t stream_step,
                   uint64_t first, bool vec) {
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

void normals(const Normals& a) {
  with_dtype(a.dtype, "dtype", [&](auto zero) {
    using T = decltype(zero);
    if (a.rows == 0 || a.n == 0) return;
    const unsigned grid_rows = (unsigned)(a.rows < 65535 ? a.rows : 65535);
    const dim3 grid(grid_size(ceil_div(ceil_div(a.n, 4), kThreads)), grid_rows);
    const bool vec = pack_aligned<4, T>({a.out}) && (a.rows == 1 || a.n % 4 == 0);
    queue_kernel(normals_kernel<T>, grid, kThreads, 0, static_cast<T*>(a.out), a.rows, a.n, a.seed, a.stream,
                 a.stream_step, a.first_block, vec);
  });
}

}  // namespace rcm::rng
