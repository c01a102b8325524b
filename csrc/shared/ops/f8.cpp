#include "shared/ops/f8.h"

using namespace rcm;

static float checked(const void* src, const void* dst, int64_t n, double scale) {
  need(src, "src");
  need(dst, "dst");
  size_at_least(n, 0, "n");
  const float s = (float)scale;
  if (!(s > 0.0f) || s - s != 0.0f) fail(RCM_E_ARG, "scale: want a positive f32, got %g", scale);
  return s;
}
static void dtype_up_to(int32_t dtype, int32_t last, const char* name) {
  if (dtype < RCM_F32 || dtype > last) fail(RCM_E_DTYPE, "%s: code %d cannot be converted to or from f8", name, dtype);
}

rcm_status rcm_f8_encode(const void* src, void* dst, int64_t n, double scale, int32_t src_dtype) {
  return op_call("f8_encode", [&] {
    const float s = checked(src, dst, n, scale);
    dtype_up_to(src_dtype, RCM_F16, "src_dtype");
    f8::encode({src, dst, n, s, src_dtype});
  });
}

rcm_status rcm_f8_decode(const void* src, void* dst, int64_t n, double scale, int32_t dst_dtype) {
  return op_call("f8_decode", [&] {
    const float s = checked(src, dst, n, scale);
    dtype_up_to(dst_dtype, RCM_F64, "dst_dtype");
    f8::decode({src, dst, n, s, dst_dtype});
  });
}
