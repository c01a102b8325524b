// add_modulation: arguments and checks, the same for both backends.
#pragma once
#include "shared/guard.h"

namespace rcm::add_modulation {

struct Sizes {
  int64_t B, S, Se, D;
  int32_t p_dtype, dtype;
};
// Tangents are null in _fwd.
struct Forward {
  const void *p, *e, *e_dot;
  void *y, *y_dot;
};
struct Backward {
  const void* y_bar;
  void *p_bar, *e_bar;
};

inline void check(const Sizes& z) {
  size_at_least(z.B, 0, "B");
  size_at_least(z.S, 0, "S");
  size_at_least(z.D, 0, "D");
  if (z.Se != 1 && z.Se != z.S) fail(RCM_E_SHAPE, "Se: want 1 or %lld, got %lld", (long long)z.S, (long long)z.Se);
  if (z.dtype != RCM_F32 && z.dtype != RCM_F64) fail(RCM_E_DTYPE, "e: want f32 or f64, got code %d", z.dtype);
  same_kind(z.p_dtype, z.dtype == RCM_F64, "p");
}

// Defined by each backend; the arguments have been checked.
void forward(const Forward& a, const Sizes& z);
void backward(const Backward& a, const Sizes& z);

}  // namespace rcm::add_modulation
