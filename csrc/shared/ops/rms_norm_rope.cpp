#include "shared/ops/rms_norm_rope.h"

using namespace rcm;
using namespace rcm::rms_norm_rope;

static void checked_forward(const Forward& a, const Sizes& z) {
  need(a.x, "x");
  need(a.w, "w");
  need(a.y, "y");
  need(a.rstd, "rstd");
  check(z, a.cos, a.sin);
  forward(a, z);
}

rcm_status rcm_rms_norm_rope_fwd(const void* x, const void* w, const void* cos, const void* sin, void* y, void* rstd,
                                 int64_t B, int64_t L, int64_t D, int64_t K, int64_t group, int32_t rope, double eps,
                                 int32_t x_dtype, int32_t w_dtype, int32_t y_dtype) {
  return op_call("rms_norm_rope_fwd", [&] {
    checked_forward({x, w, cos, sin, nullptr, y, nullptr, rstd, eps},
                    {B, L, D, K, group, rope, x_dtype, w_dtype, y_dtype});
  });
}

rcm_status rcm_rms_norm_rope_jvp(const void* x, const void* w, const void* cos, const void* sin, const void* x_dot,
                                 void* y, void* y_dot, void* rstd, int64_t B, int64_t L, int64_t D, int64_t K,
                                 int64_t group, int32_t rope, double eps, int32_t x_dtype, int32_t w_dtype,
                                 int32_t y_dtype) {
  return op_call("rms_norm_rope_jvp", [&] {
    need(x_dot, "x_dot");
    need(y_dot, "y_dot");
    checked_forward({x, w, cos, sin, x_dot, y, y_dot, rstd, eps}, {B, L, D, K, group, rope, x_dtype, w_dtype, y_dtype});
  });
}

rcm_status rcm_rms_norm_rope_vjp(const void* x, const void* w, const void* cos, const void* sin, const void* rstd,
                                 const void* y_bar, void* x_bar, void* w_bar, int64_t B, int64_t L, int64_t D,
                                 int64_t K, int64_t group, int32_t rope, int32_t x_dtype, int32_t w_dtype,
                                 int32_t y_dtype) {
  return op_call("rms_norm_rope_vjp", [&] {
    need(x, "x");
    need(w, "w");
    need(rstd, "rstd");
    need(y_bar, "y_bar");
    const Sizes z{B, L, D, K, group, rope, x_dtype, w_dtype, y_dtype};
    check(z, cos, sin);
    backward({x, w, cos, sin, rstd, y_bar, x_bar, w_bar}, z);
  });
}
