#include "shared/ops/sq_loss.h"

using namespace rcm;
using namespace rcm::sq_loss;

rcm_status rcm_sq_loss_fwd(const void* x, const void* target, const void* delta, const double* weight, double* loss,
                           int64_t B, int64_t N, int32_t dtype) {
  return op_call("sq_loss_fwd", [&] {
    check(x, weight, {B, N, dtype});
    need(loss, "loss");
    forward({x, target, delta, weight, nullptr, loss, nullptr}, {B, N, dtype});
  });
}

rcm_status rcm_sq_loss_jvp(const void* x, const void* target, const void* delta, const double* weight,
                           const void* x_dot, double* loss, double* loss_dot, int64_t B, int64_t N, int32_t dtype) {
  return op_call("sq_loss_jvp", [&] {
    check(x, weight, {B, N, dtype});
    need(x_dot, "x_dot");
    need(loss, "loss");
    need(loss_dot, "loss_dot");
    forward({x, target, delta, weight, x_dot, loss, loss_dot}, {B, N, dtype});
  });
}

rcm_status rcm_sq_loss_vjp(const void* x, const void* target, const void* delta, const double* weight,
                           const double* loss_bar, void* x_bar, int64_t B, int64_t N, int32_t dtype) {
  return op_call("sq_loss_vjp", [&] {
    check(x, weight, {B, N, dtype});
    need(loss_bar, "loss_bar");
    need(x_bar, "x_bar");
    backward({x, target, delta, weight, loss_bar, x_bar}, {B, N, dtype});
  });
}
