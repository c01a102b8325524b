// sq_loss: arguments and checks, the same for both backends.
#pragma once
#include "shared/guard.h"

namespace rcm::sq_loss {

struct Sizes {
  int64_t B, N;
  int32_t dtype;
};
// Tangents are null in _fwd.
struct Forward {
  const void *x, *target, *delta;
  const double* weight;
  const void* x_dot;
  double *loss, *loss_dot;
};
struct Backward {
  const void *x, *target, *delta;
  const double *weight, *loss_bar;
  void* x_bar;
};

inline void check(const void* x, const double* weight, const Sizes& z) {
  need(x, "x");
  need(weight, "weight");
  size_at_least(z.B, 0, "B");
  size_at_least(z.N, 0, "N");
}

// Defined by each backend; the arguments have been checked.
void forward(const Forward& a, const Sizes& z);
void backward(const Backward& a, const Sizes& z);

}  // namespace rcm::sq_loss
