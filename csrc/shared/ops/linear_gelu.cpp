#include "shared/ops/linear_gelu.h"

using namespace rcm;
using namespace rcm::linear_gelu;

static void checked_forward(const Forward& a, const Sizes& z) {
  check(z);
  need(a.x, "x");
  need(a.w, "w");
  need(a.y, "y");
  forward(a, z);
}

rcm_status rcm_linear_gelu_fwd(const void* x, const void* w, const void* b, void* h, void* y, int64_t M, int64_t N,
                               int64_t K, int32_t kind, int32_t x_dtype, int32_t w_dtype, int32_t y_dtype) {
  return op_call("linear_gelu_fwd", [&] {
    checked_forward({x, w, b, nullptr, h, y, nullptr}, {{M, N, K, x_dtype, w_dtype, y_dtype}, kind});
  });
}

rcm_status rcm_linear_gelu_jvp(const void* x, const void* w, const void* b, const void* x_dot, void* h, void* y,
                               void* y_dot, int64_t M, int64_t N, int64_t K, int32_t kind, int32_t x_dtype,
                               int32_t w_dtype, int32_t y_dtype) {
  return op_call("linear_gelu_jvp", [&] {
    need(x_dot, "x_dot");
    need(y_dot, "y_dot");
    checked_forward({x, w, b, x_dot, h, y, y_dot}, {{M, N, K, x_dtype, w_dtype, y_dtype}, kind});
  });
}

rcm_status rcm_linear_gelu_vjp(const void* x, const void* w, const void* h, const void* y_bar, void* scratch,
                               void* x_bar, void* w_bar, void* b_bar, int64_t M, int64_t N, int64_t K, int32_t kind,
                               int32_t x_dtype, int32_t w_dtype, int32_t y_dtype) {
  return op_call("linear_gelu_vjp", [&] {
    const Sizes z{{M, N, K, x_dtype, w_dtype, y_dtype}, kind};
    check(z);
    if (w_bar) need(x, "x");
    need(w, "w");
    need(h, "h");
    need(y_bar, "y_bar");
    need(scratch, "scratch");
    backward({x, w, h, y_bar, scratch, x_bar, w_bar, b_bar}, z);
  });
}
