// activation: arguments and checks, the same for both backends.
#pragma once
#include <type_traits>

#include "shared/guard.h"

namespace rcm::activation {

struct Sizes {
  int64_t n;
  int32_t kind, dtype;
};
enum Kind { kGeluTanh = 0, kGeluErf = 1, kSilu = 2, kTanh = 3 };

// Tangents are null in _fwd.
struct Forward {
  const void *x, *x_dot;
  void *y, *y_dot;
};
// x_bar may be y_bar itself.
struct Backward {
  const void *x, *y_bar;
  void* x_bar;
};

inline void check_kind(int32_t kind) {
  if (kind < kGeluTanh || kind > kTanh) fail(RCM_E_ARG, "kind: want 0 to 3, got %d", kind);
}
inline void check(const Sizes& z) {
  size_at_least(z.n, 0, "n");
  check_kind(z.kind);
}

// Calls body(std::integral_constant) with the activation's code as a compile-time constant.
template <class Body>
void with_kind(int32_t kind, Body&& body) {
  switch (kind) {
    case kGeluTanh: return body(std::integral_constant<int, kGeluTanh>{});
    case kGeluErf: return body(std::integral_constant<int, kGeluErf>{});
    case kSilu: return body(std::integral_constant<int, kSilu>{});
    default: return body(std::integral_constant<int, kTanh>{});
  }
}

// Defined by each backend; the arguments have been checked.
void forward(const Forward& a, const Sizes& z);
void backward(const Backward& a, const Sizes& z);

}  // namespace rcm::activation
