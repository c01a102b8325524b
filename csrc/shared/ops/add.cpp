#include "shared/ops/add.h"

using namespace rcm;
using namespace rcm::add;

static void checked_forward(const Forward& f, const Sizes& z) {
  need(f.a, "a");
  need(f.b, "b");
  need(f.y, "y");
  check(z);
  forward(f, z);
}

rcm_status rcm_add_fwd(const void* a, const void* b, void* y, int64_t n, int32_t dtype) {
  return op_call("add_fwd", [&] { checked_forward({a, b, nullptr, nullptr, y, nullptr}, {n, dtype}); });
}

rcm_status rcm_add_jvp(const void* a, const void* b, const void* a_dot, const void* b_dot, void* y, void* y_dot,
                       int64_t n, int32_t dtype) {
  return op_call("add_jvp", [&] {
    need(y_dot, "y_dot");
    checked_forward({a, b, a_dot, b_dot, y, y_dot}, {n, dtype});
  });
}

rcm_status rcm_add_vjp(const void* y_bar, void* a_bar, void* b_bar, int64_t n, int32_t dtype) {
  return op_call("add_vjp", [&] {
    need(y_bar, "y_bar");
    check({n, dtype});
    backward({y_bar, a_bar, b_bar}, {n, dtype});
  });
}
