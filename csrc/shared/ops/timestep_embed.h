// timestep_embed: arguments and checks, the same for both backends.
#pragma once
#include "shared/guard.h"

namespace rcm::timestep_embed {

struct Sizes {
  int64_t B, N;
  int32_t dtype;
};
// Tangents are null in _fwd.
struct Forward {
  const double *t, *t_dot;
  void *y, *y_dot;
};
struct Backward {
  const double* t;
  const void* y_bar;
  double* t_bar;
};

inline void check(const Sizes& z) {
  size_at_least(z.B, 0, "B");
  if (z.N < 2 || z.N % 2 != 0) fail(RCM_E_SHAPE, "N: want an even width, got %lld", (long long)z.N);
  if (z.dtype != RCM_F32 && z.dtype != RCM_F64) fail(RCM_E_DTYPE, "y: want f32 or f64, got code %d", z.dtype);
}

// Defined by each backend; the arguments have been checked.
void forward(const Forward& a, const Sizes& z);
void backward(const Backward& a, const Sizes& z);

}  // namespace rcm::timestep_embed
