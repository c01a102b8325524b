// lincomb: arguments and checks, the same for both backends.
#pragma once
#include "shared/guard.h"

namespace rcm::lincomb {

struct Sizes {
  int64_t B, N;
  int32_t dtype;
};
struct Terms {
  const void* x[4];
  int32_t count;
};
// Tangents and coef_dot are null in _fwd.
struct Forward {
  Terms x, x_dot;
  const double *coef, *coef_dot;
  void *y, *y_dot;
};
// The cotangent of one term; coef [B] is the row of that term.
struct Backward {
  const void* y_bar;
  const double* coef;
  void* x_bar;
};

inline void check(const Sizes& z) {
  size_at_least(z.B, 0, "B");
  size_at_least(z.N, 0, "N");
}

// Defined by each backend; the arguments have been checked.
void forward(const Forward& a, const Sizes& z);
void backward(const Backward& a, const Sizes& z);

}  // namespace rcm::lincomb
