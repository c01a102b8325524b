#include "shared/ops/activation.h"

using namespace rcm;
using namespace rcm::activation;

rcm_status rcm_activation_fwd(const void* x, void* y, int64_t n, int32_t kind, int32_t dtype) {
  return op_call("activation_fwd", [&] {
    need(x, "x");
    need(y, "y");
    check({n, kind, dtype});
    forward({x, nullptr, y, nullptr}, {n, kind, dtype});
  });
}

rcm_status rcm_activation_jvp(const void* x, const void* x_dot, void* y, void* y_dot, int64_t n, int32_t kind,
                              int32_t dtype) {
  return op_call("activation_jvp", [&] {
    need(x, "x");
    need(x_dot, "x_dot");
    need(y, "y");
    need(y_dot, "y_dot");
    check({n, kind, dtype});
    forward({x, x_dot, y, y_dot}, {n, kind, dtype});
  });
}

rcm_status rcm_activation_vjp(const void* x, const void* y_bar, void* x_bar, int64_t n, int32_t kind, int32_t dtype) {
  return op_call("activation_vjp", [&] {
    need(x, "x");
    need(y_bar, "y_bar");
    need(x_bar, "x_bar");
    check({n, kind, dtype});
    backward({x, y_bar, x_bar}, {n, kind, dtype});
  });
}
