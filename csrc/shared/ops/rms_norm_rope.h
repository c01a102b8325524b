// rms_norm_rope: arguments and checks, the same for both backends.
#pragma once
#include "shared/guard.h"

namespace rcm::rms_norm_rope {

struct Sizes {
  int64_t B, L, D, K, group;
  int32_t rope, x_dtype, w_dtype, y_dtype;
};
// Tangents are null in _fwd.
struct Forward {
  const void *x, *w, *cos, *sin, *x_dot;
  void *y, *y_dot, *rstd;
  double eps;
};
struct Backward {
  const void *x, *w, *cos, *sin, *rstd, *y_bar;
  void *x_bar, *w_bar;
};

inline void check(const Sizes& z, const void* cos, const void* sin) {
  size_at_least(z.B, 0, "B");
  size_at_least(z.L, 0, "L");
  size_at_least(z.D, 1, "D");
  const auto divides = [&](int64_t n, const char* name) {
    if (n < 1 || z.D % n != 0)
      fail(RCM_E_SHAPE, "%s: want a divisor of D = %lld, got %lld", name, (long long)z.D, (long long)n);
  };
  divides(z.K, "K");
  divides(z.group, "group");
  if (z.rope < 0 || z.rope > 2) fail(RCM_E_ARG, "rope: want 0, 1 or 2, got %d", z.rope);
  if (z.rope != 0) {
    need(cos, "cos");
    need(sin, "sin");
    if (z.K % 2 != 0) fail(RCM_E_SHAPE, "K: want an even width for rope, got %lld", (long long)z.K);
  }
  same_kind(z.w_dtype, z.x_dtype == RCM_F64, "w_dtype");
}

// Defined by each backend; the arguments have been checked.
void forward(const Forward& a, const Sizes& z);
void backward(const Backward& a, const Sizes& z);

}  // namespace rcm::rms_norm_rope
