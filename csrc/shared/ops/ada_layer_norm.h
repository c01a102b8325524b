// ada_layer_norm: arguments and checks, the same for both backends.
#pragma once
#include "shared/guard.h"

namespace rcm::ada_layer_norm {

struct Sizes {
  int64_t B, L, D, stride;
  int32_t x_dtype, y_dtype;
};
// Tangents are null in _fwd.
struct Forward {
  const void *x, *shift, *scale, *x_dot, *shift_dot, *scale_dot;
  void *y, *y_dot, *mean, *rstd;
  double eps;
};
struct Backward {
  const void *x, *scale, *mean, *rstd, *y_bar;
  void *x_bar, *shift_bar, *scale_bar;
};

inline void check(const Sizes& z) {
  size_at_least(z.B, 0, "B");
  size_at_least(z.L, 0, "L");
  size_at_least(z.D, 1, "D");
  if (z.B > 1) size_at_least(z.stride, z.D, "mod_stride");
}

// Defined by each backend; the arguments have been checked.
void forward(const Forward& a, const Sizes& z);
void backward(const Backward& a, const Sizes& z);

}  // namespace rcm::ada_layer_norm
