// Nondifferentiable: f8_e4m3 with one scale.
#include "shared/f8.h"

#include "cpu/runtime/common.h"

using namespace rcm;

namespace {

constexpr int64_t kBlock = 4096, kGrain = 1 << 15;

void scale_in_range(double scale) {
  const float s = (float)scale;
  if (!(s > 0.0f) || s - s != 0.0f) fail(RCM_E_ARG, "scale: want a positive f32, got %g", scale);
}
void dtype_in_range(int32_t dtype, int32_t last, const char* name) {
  if (dtype < RCM_F32 || dtype > last) fail(RCM_E_DTYPE, "%s: code %d cannot go with f8", name, dtype);
}

template <class Fn>
void blocks(int64_t n, Fn&& fn) {
  parallel_for(n, kGrain, [&](int64_t from, int64_t to, int) {
    for (int64_t i = from; i < to; i += kBlock) fn(i, to - i < kBlock ? to - i : kBlock);
  });
}

}  // namespace

rcm_status rcm_f8_encode(const void* src, void* dst, int64_t n, double scale, int32_t src_dtype) {
  return guard("f8_encode", [&] {
    need(src, "src");
    need(dst, "dst");
    size_at_least(n, 0, "n");
    scale_in_range(scale);
    dtype_in_range(src_dtype, RCM_F16, "src_dtype");
    const float s = (float)scale;
    blocks(n, [&](int64_t i, int64_t m) {
      const float* from = load_row<float>(src, src_dtype, i, m, scratch<float>(0, kBlock));
      uint8_t* to = static_cast<uint8_t*>(dst) + i;
      for (int64_t j = 0; j < m; ++j) to[j] = f8_encode(from[j] / s);
    });
  });
}

rcm_status rcm_f8_decode(const void* src, void* dst, int64_t n, double scale, int32_t dst_dtype) {
  return guard("f8_decode", [&] {
    need(src, "src");
    need(dst, "dst");
    size_at_least(n, 0, "n");
    scale_in_range(scale);
    dtype_in_range(dst_dtype, RCM_F64, "dst_dtype");
    const float s = (float)scale;
    blocks(n, [&](int64_t i, int64_t m) {
      const uint8_t* from = static_cast<const uint8_t*>(src) + i;
      float* row = scratch<float>(0, kBlock);
      for (int64_t j = 0; j < m; ++j) row[j] = f8_decode(from[j]) * s;
      store_row<float>(dst, dst_dtype, i, m, row);
    });
  });
}
