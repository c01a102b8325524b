// add: arguments and checks, the same for both backends.
#pragma once
#include "shared/guard.h"

namespace rcm::add {

struct Sizes {
  int64_t n;
  int32_t dtype;
};
// Tangents are null in _fwd; in _jvp null a_dot or b_dot is zero.
struct Forward {
  const void *a, *b, *a_dot, *b_dot;
  void *y, *y_dot;
};
struct Backward {
  const void* y_bar;
  void *a_bar, *b_bar;
};

inline void check(const Sizes& z) {
  size_at_least(z.n, 0, "n");
  float_dtype(z.dtype, "dtype");
}

// Defined by each backend; the arguments have been checked.
void forward(const Forward& a, const Sizes& z);
void backward(const Backward& a, const Sizes& z);

}  // namespace rcm::add
