#include "shared/ops/layer_norm.h"

using namespace rcm;
using namespace rcm::layer_norm;

static void checked_forward(const Forward& a, const Sizes& z) {
  need(a.x, "x");
  need(a.y, "y");
  need(a.mean, "mean");
  need(a.rstd, "rstd");
  forward(a, checked(z, a.w || a.b));
}

rcm_status rcm_layer_norm_fwd(const void* x, const void* w, const void* b, void* y, void* mean, void* rstd, int64_t M,
                              int64_t N, double eps, int32_t x_dtype, int32_t w_dtype, int32_t y_dtype) {
  return op_call("layer_norm_fwd", [&] {
    checked_forward({x, w, b, nullptr, y, nullptr, mean, rstd, eps}, {M, N, x_dtype, w_dtype, y_dtype});
  });
}

rcm_status rcm_layer_norm_jvp(const void* x, const void* w, const void* b, const void* x_dot, void* y, void* y_dot,
                              void* mean, void* rstd, int64_t M, int64_t N, double eps, int32_t x_dtype,
                              int32_t w_dtype, int32_t y_dtype) {
  return op_call("layer_norm_jvp", [&] {
    need(x_dot, "x_dot");
    need(y_dot, "y_dot");
    checked_forward({x, w, b, x_dot, y, y_dot, mean, rstd, eps}, {M, N, x_dtype, w_dtype, y_dtype});
  });
}

rcm_status rcm_layer_norm_vjp(const void* x, const void* w, const void* mean, const void* rstd, const void* y_bar,
                              void* x_bar, void* w_bar, void* b_bar, int64_t M, int64_t N, int32_t x_dtype,
                              int32_t w_dtype, int32_t y_dtype) {
  return op_call("layer_norm_vjp", [&] {
    need(x, "x");
    need(mean, "mean");
    need(rstd, "rstd");
    need(y_bar, "y_bar");
    backward({x, w, mean, rstd, y_bar, x_bar, w_bar, b_bar}, checked({M, N, x_dtype, w_dtype, y_dtype}, w != nullptr));
  });
}
