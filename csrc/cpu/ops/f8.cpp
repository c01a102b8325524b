// f8_e4m3 with one scale per tensor; no derivative.
#include "shared/ops/f8.h"

#include "cpu/runtime/common.h"

namespace rcm::f8 {
namespace {

constexpr int64_t kBlock = 4096, kGrain = 1 << 15;

template <class Fn>
void blocks(int64_t n, Fn&& fn) {
  parallel_for(n, kGrain, [&](int64_t from, int64_t to, int) {
    for (int64_t i = from; i < to; i += kBlock) fn(i, to - i < kBlock ? to - i : kBlock);
  });
}

}  // namespace

void encode(const Encode& a) {
  blocks(a.n, [&](int64_t i, int64_t m) {
    const float* from = load_row<float>(a.values, a.dtype, i, m, scratch<float>(0, kBlock));
    uint8_t* to = static_cast<uint8_t*>(a.codes) + i;
    for (int64_t j = 0; j < m; ++j) to[j] = f8_encode(from[j] / a.scale);
  });
}

void decode(const Decode& a) {
  blocks(a.n, [&](int64_t i, int64_t m) {
    const uint8_t* from = static_cast<const uint8_t*>(a.codes) + i;
    float* row = scratch<float>(0, kBlock);
    for (int64_t j = 0; j < m; ++j) row[j] = f8_decode(from[j]) * a.scale;
    store_row<float>(a.values, a.dtype, i, m, row);
  });
}

}  // namespace rcm::f8
