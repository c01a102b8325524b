// layer_norm: arguments and checks, the same for both backends.
#pragma once
#include "shared/guard.h"

namespace rcm::layer_norm {

struct Sizes {
  int64_t M, N;
  int32_t x_dtype, w_dtype, y_dtype;
};
// Tangents are null in _fwd.
struct Forward {
  const void *x, *w, *b, *x_dot;
  void *y, *y_dot, *mean, *rstd;
  double eps;
};
struct Backward {
  const void *x, *w, *mean, *rstd, *y_bar;
  void *x_bar, *w_bar, *b_bar;
};

// The dtype of w and b counts only when the call has them; without, it is set to that of x.
inline Sizes checked(Sizes z, bool affine) {
  size_at_least(z.M, 0, "M");
  size_at_least(z.N, 1, "N");
  if (!affine) z.w_dtype = z.x_dtype;
  same_kind(z.w_dtype, z.x_dtype == RCM_F64, "w_dtype");
  return z;
}

// Defined by each backend; the arguments have been checked.
void forward(const Forward& a, const Sizes& z);
void backward(const Backward& a, const Sizes& z);

}  // namespace rcm::layer_norm
