#include "shared/ops/cross_entropy.h"

using namespace rcm;
using namespace rcm::cross_entropy;

rcm_status rcm_cross_entropy_fwd(const void* x, const int32_t* label, double* loss, int64_t B, int64_t N,
                                 int32_t dtype) {
  return op_call("cross_entropy_fwd", [&] {
    check(x, label, {B, N, dtype});
    need(loss, "loss");
    forward({x, label, nullptr, loss, nullptr}, {B, N, dtype});
  });
}

rcm_status rcm_cross_entropy_jvp(const void* x, const int32_t* label, const void* x_dot, double* loss, double* loss_dot,
                                 int64_t B, int64_t N, int32_t dtype) {
  return op_call("cross_entropy_jvp", [&] {
    check(x, label, {B, N, dtype});
    need(x_dot, "x_dot");
    need(loss, "loss");
    need(loss_dot, "loss_dot");
    forward({x, label, x_dot, loss, loss_dot}, {B, N, dtype});
  });
}

rcm_status rcm_cross_entropy_vjp(const void* x, const int32_t* label, const double* loss_bar, void* x_bar, int64_t B,
                                 int64_t N, int32_t dtype) {
  return op_call("cross_entropy_vjp", [&] {
    check(x, label, {B, N, dtype});
    need(loss_bar, "loss_bar");
    need(x_bar, "x_bar");
    backward({x, label, loss_bar, x_bar}, {B, N, dtype});
  });
}
