// Calls templated code with the storage type of a dtype code. bf16 and f16 are types of each backend.
#pragma once
#include "guard.h"

namespace rcm {

template <class Bf16, class F16, class Body>
void dispatch_float(int32_t dtype, const char* name, Body&& body) {
  switch (dtype) {
    case RCM_F32: return body(float{});
    case RCM_F64: return body(double{});
    case RCM_BF16: return body(Bf16{});
    case RCM_F16: return body(F16{});
    default: fail(RCM_E_DTYPE, "%s: want f32, bf16, f16 or f64, got code %d", name, dtype);
  }
}

}  // namespace rcm
