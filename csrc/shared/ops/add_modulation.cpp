#include "shared/ops/add_modulation.h"

using namespace rcm;
using namespace rcm::add_modulation;

static void checked_forward(const Forward& a, const Sizes& z) {
  need(a.p, "p");
  need(a.e, "e");
  need(a.y, "y");
  check(z);
  forward(a, z);
}

rcm_status rcm_add_modulation_fwd(const void* p, const void* e, void* y, int64_t B, int64_t S, int64_t Se, int64_t D,
                                  int32_t p_dtype, int32_t dtype) {
  return op_call("add_modulation_fwd",
                 [&] { checked_forward({p, e, nullptr, y, nullptr}, {B, S, Se, D, p_dtype, dtype}); });
}

rcm_status rcm_add_modulation_jvp(const void* p, const void* e, const void* e_dot, void* y, void* y_dot, int64_t B,
                                  int64_t S, int64_t Se, int64_t D, int32_t p_dtype, int32_t dtype) {
  return op_call("add_modulation_jvp", [&] {
    need(e_dot, "e_dot");
    need(y_dot, "y_dot");
    checked_forward({p, e, e_dot, y, y_dot}, {B, S, Se, D, p_dtype, dtype});
  });
}

rcm_status rcm_add_modulation_vjp(const void* y_bar, void* p_bar, void* e_bar, int64_t B, int64_t S, int64_t Se,
                                  int64_t D, int32_t p_dtype, int32_t dtype) {
  return op_call("add_modulation_vjp", [&] {
    need(y_bar, "y_bar");
    const Sizes z{B, S, Se, D, p_dtype, dtype};
    check(z);
    backward({y_bar, p_bar, e_bar}, z);
  });
}
