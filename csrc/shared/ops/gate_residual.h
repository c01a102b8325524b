// gate_residual: arguments and checks, the same for both backends.
#pragma once
#include "shared/guard.h"

namespace rcm::gate_residual {

struct Sizes {
  int64_t B, L, D, stride;
  int32_t x_dtype, h_dtype;
};
// Tangents are null in _fwd.
struct Forward {
  const void *x, *h, *gate, *x_dot, *h_dot, *gate_dot;
  void *y, *y_dot;
};
struct Backward {
  const void *h, *gate, *y_bar;
  void *h_bar, *gate_bar;
};

inline void check(const Sizes& z) {
  size_at_least(z.B, 0, "B");
  size_at_least(z.L, 0, "L");
  size_at_least(z.D, 0, "D");
}

// Defined by each backend; the arguments have been checked.
void forward(const Forward& a, const Sizes& z);
void backward(const Backward& a, const Sizes& z);

}  // namespace rcm::gate_residual
