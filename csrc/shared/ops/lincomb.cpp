#include "shared/ops/lincomb.h"

using namespace rcm;
using namespace rcm::lincomb;

static void checked_forward(const Forward& a, const Sizes& z) {
  if (a.x.count < 1 || a.x.count > 4) fail(RCM_E_ARG, "terms: want 1 to 4, got %d", a.x.count);
  need(a.coef, "coef");
  need(a.y, "y");
  check(z);
  forward(a, z);
}

rcm_status rcm_lincomb_fwd(const void* x0, const void* x1, const void* x2, const void* x3, const double* coef, void* y,
                           int64_t B, int64_t N, int32_t terms, int32_t dtype) {
  return op_call("lincomb_fwd",
                 [&] { checked_forward({{{x0, x1, x2, x3}, terms}, {}, coef, nullptr, y, nullptr}, {B, N, dtype}); });
}

rcm_status rcm_lincomb_jvp(const void* x0, const void* x1, const void* x2, const void* x3, const void* x0_dot,
                           const void* x1_dot, const void* x2_dot, const void* x3_dot, const double* coef,
                           const double* coef_dot, void* y, void* y_dot, int64_t B, int64_t N, int32_t terms,
                           int32_t dtype) {
  return op_call("lincomb_jvp", [&] {
    need(y_dot, "y_dot");
    const Terms x{{x0, x1, x2, x3}, terms}, x_dot{{x0_dot, x1_dot, x2_dot, x3_dot}, terms};
    checked_forward({x, x_dot, coef, coef_dot, y, y_dot}, {B, N, dtype});
  });
}

rcm_status rcm_lincomb_vjp(const void* y_bar, const double* coef, void* x_bar, int64_t B, int64_t N, int32_t term,
                           int32_t dtype) {
  return op_call("lincomb_vjp", [&] {
    if (term < 0 || term > 3) fail(RCM_E_ARG, "term: want 0 to 3, got %d", term);
    need(y_bar, "y_bar");
    need(coef, "coef");
    need(x_bar, "x_bar");
    check({B, N, dtype});
    backward({y_bar, coef + term * B, x_bar}, {B, N, dtype});
  });
}
