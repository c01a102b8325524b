// linear_gelu: arguments and checks, the same for both backends.
#pragma once
#include "shared/ops/activation.h"
#include "shared/ops/linear.h"

namespace rcm::linear_gelu {

struct Sizes {
  linear::Sizes linear;
  int32_t kind;
};
// Tangents are null in _fwd; h is null when no vjp follows.
struct Forward {
  const void *x, *w, *b, *x_dot;
  void *h, *y, *y_dot;
};
// `scratch` receives h_bar and may be y_bar itself.
struct Backward {
  const void *x, *w, *h, *y_bar;
  void *scratch, *x_bar, *w_bar, *b_bar;
};

inline void check(const Sizes& z) {
  linear::check(z.linear);
  activation::check_kind(z.kind);
}

// Defined by each backend; the arguments have been checked.
void forward(const Forward& a, const Sizes& z);
void backward(const Backward& a, const Sizes& z);

}  // namespace rcm::linear_gelu
