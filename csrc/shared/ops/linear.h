// linear: arguments and checks, the same for both backends.
#pragma once
#include "shared/guard.h"

namespace rcm::linear {

struct Sizes {
  int64_t M, N, K;
  int32_t x_dtype, w_dtype, y_dtype;
};
// Tangents are null in _fwd.
struct Forward {
  const void *x, *w, *b, *x_dot;
  void *y, *y_dot;
};
struct Backward {
  const void *x, *w, *y_bar;
  void *x_bar, *w_bar, *b_bar;
};

inline void check(const Sizes& z) {
  size_at_least(z.M, 0, "M");
  size_at_least(z.N, 0, "N");
  size_at_least(z.K, 0, "K");
  if (z.N > INT32_MAX || z.K > INT32_MAX) fail(RCM_E_SHAPE, "N and K: want below 2^31");
  for (int32_t dtype : {z.x_dtype, z.w_dtype, z.y_dtype}) same_kind(dtype, z.x_dtype == RCM_F64, "dtype");
}

// Defined by each backend; the arguments have been checked.
void forward(const Forward& a, const Sizes& z);
void backward(const Backward& a, const Sizes& z);

}  // namespace rcm::linear
