#include "shared/ops/gate_residual.h"

using namespace rcm;
using namespace rcm::gate_residual;

static void checked_forward(const Forward& a, const Sizes& z) {
  need(a.x, "x");
  need(a.h, "h");
  need(a.y, "y");
  check(z);
  forward(a, z);
}

rcm_status rcm_gate_residual_fwd(const void* x, const void* h, const void* gate, void* y, int64_t B, int64_t L,
                                 int64_t D, int64_t gate_stride, int32_t x_dtype, int32_t h_dtype) {
  return op_call("gate_residual_fwd", [&] {
    checked_forward({x, h, gate, nullptr, nullptr, nullptr, y, nullptr}, {B, L, D, gate_stride, x_dtype, h_dtype});
  });
}

rcm_status rcm_gate_residual_jvp(const void* x, const void* h, const void* gate, const void* x_dot, const void* h_dot,
                                 const void* gate_dot, void* y, void* y_dot, int64_t B, int64_t L, int64_t D,
                                 int64_t gate_stride, int32_t x_dtype, int32_t h_dtype) {
  return op_call("gate_residual_jvp", [&] {
    need(y_dot, "y_dot");
    checked_forward({x, h, gate, x_dot, h_dot, gate_dot, y, y_dot}, {B, L, D, gate_stride, x_dtype, h_dtype});
  });
}

rcm_status rcm_gate_residual_vjp(const void* h, const void* gate, const void* y_bar, void* h_bar, void* gate_bar,
                                 int64_t B, int64_t L, int64_t D, int64_t gate_stride, int32_t x_dtype,
                                 int32_t h_dtype) {
  return op_call("gate_residual_vjp", [&] {
    need(y_bar, "y_bar");
    if (gate_bar) need(h, "h");
    const Sizes z{B, L, D, gate_stride, x_dtype, h_dtype};
    check(z);
    backward({h, gate, y_bar, h_bar, gate_bar}, z);
  });
}
