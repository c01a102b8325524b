#include "shared/ops/ada_layer_norm.h"

using namespace rcm;
using namespace rcm::ada_layer_norm;

static void checked_forward(const Forward& a, const Sizes& z) {
  need(a.x, "x");
  need(a.shift, "shift");
  need(a.scale, "scale");
  need(a.y, "y");
  need(a.mean, "mean");
  need(a.rstd, "rstd");
  check(z);
  forward(a, z);
}

rcm_status rcm_ada_layer_norm_fwd(const void* x, const void* shift, const void* scale, void* y, void* mean, void* rstd,
                                  int64_t B, int64_t L, int64_t D, int64_t mod_stride, double eps, int32_t x_dtype,
                                  int32_t y_dtype) {
  return op_call("ada_layer_norm_fwd", [&] {
    const Forward a{x, shift, scale, nullptr, nullptr, nullptr, y, nullptr, mean, rstd, eps};
    checked_forward(a, {B, L, D, mod_stride, x_dtype, y_dtype});
  });
}

rcm_status rcm_ada_layer_norm_jvp(const void* x, const void* shift, const void* scale, const void* x_dot,
                                  const void* shift_dot, const void* scale_dot, void* y, void* y_dot, void* mean,
                                  void* rstd, int64_t B, int64_t L, int64_t D, int64_t mod_stride, double eps,
                                  int32_t x_dtype, int32_t y_dtype) {
  return op_call("ada_layer_norm_jvp", [&] {
    need(y_dot, "y_dot");
    const Forward a{x, shift, scale, x_dot, shift_dot, scale_dot, y, y_dot, mean, rstd, eps};
    checked_forward(a, {B, L, D, mod_stride, x_dtype, y_dtype});
  });
}

rcm_status rcm_ada_layer_norm_vjp(const void* x, const void* scale, const void* mean, const void* rstd,
                                  const void* y_bar, void* x_bar, void* shift_bar, void* scale_bar, int64_t B,
                                  int64_t L, int64_t D, int64_t mod_stride, int32_t x_dtype, int32_t y_dtype) {
  return op_call("ada_layer_norm_vjp", [&] {
    need(x, "x");
    need(scale, "scale");
    need(mean, "mean");
    need(rstd, "rstd");
    need(y_bar, "y_bar");
    const Sizes z{B, L, D, mod_stride, x_dtype, y_dtype};
    check(z);
    backward({x, scale, mean, rstd, y_bar, x_bar, shift_bar, scale_bar}, z);
  });
}
