#include "shared/ops/rng.h"

#include "cpu/runtime/common.h"

namespace rcm::rng {
namespace {

inline void philox(uint32_t c[4], uint32_t k0, uint32_t k1) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t a = (uint64_t)0xD2511F53u * c[0], b = (uint64_t)0xCD9E8D57u * c[2];
    const uint32_t next[4] = {(uint32_t)(b >> 32) ^ c[1] ^ k0, (uint32_t)b, (uint32_t)(a >> 32) ^ c[3] ^ k1,
                              (uint32_t)a};
    std::memcpy(c, next, sizeof next);
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
}

inline double unit(uint32_t r) { return ((double)r + 0.5) * 2.3283064365386962890625e-10; }

}  // namespace

void normals(const Normals& a) {
  const int64_t per_row = (a.n + 3) / 4;
  with_dtype(a.dtype, "dtype", [&](auto zero) {
    using T = decltype(zero);
    T* y = static_cast<T*>(a.out);
    parallel_for(a.rows * per_row, 2048, [&](int64_t from, int64_t to, int) {
      for (int64_t i = from; i < to; ++i) {
        const int64_t row = i / per_row, block = i % per_row;
        const uint64_t at = a.first_block + (uint64_t)block, key = a.stream + (uint64_t)row * a.stream_step;
        uint32_t c[4] = {(uint32_t)at, (uint32_t)(at >> 32), (uint32_t)key, (uint32_t)(key >> 32)};
        philox(c, (uint32_t)a.seed, (uint32_t)(a.seed >> 32));
        double v[4];
        for (int pair = 0; pair < 2; ++pair) {
          const double radius = std::sqrt(-2 * std::log(unit(c[2 * pair])));
          const double angle = 6.283185307179586476925 * unit(c[2 * pair + 1]);
          v[2 * pair] = radius * std::cos(angle);
          v[2 * pair + 1] = radius * std::sin(angle);
        }
        for (int64_t j = 0; j < 4 && 4 * block + j < a.n; ++j) y[row * a.n + 4 * block + j] = from_float<T>(v[j]);
      }
    });
  });
}

}  // namespace rcm::rng
