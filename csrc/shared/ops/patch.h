// patchify and unpatchify: the permutation between a latent [B,C,T,Y,X] and its patches [B,L,P].
#pragma once
#include "shared/guard.h"

namespace rcm {

struct PatchShape {
  int64_t B, C, T, Y, X, pt, py, px;
  int32_t order;
};
// One tensor to move or, when from_dot is given, two of the same shape; dtypes may differ.
struct Move {
  const void *from, *from_dot;
  void *to, *to_dot;
  int32_t from_dtype, to_dtype;
};

inline void check(const PatchShape& s) {
  size_at_least(s.B, 0, "B");
  size_at_least(s.C, 0, "C");
  if (s.pt < 1 || s.py < 1 || s.px < 1) fail(RCM_E_SHAPE, "patch: want at least 1 in every axis");
  if (s.T < 0 || s.Y < 0 || s.X < 0 || s.T % s.pt || s.Y % s.py || s.X % s.px) {
    fail(RCM_E_SHAPE, "latent: want whole patches of %lld x %lld x %lld, got %lld x %lld x %lld", (long long)s.pt,
         (long long)s.py, (long long)s.px, (long long)s.T, (long long)s.Y, (long long)s.X);
  }
  if (s.order < 0 || s.order > 1) fail(RCM_E_ARG, "order: want 0 or 1, got %d", s.order);
}

// Defined by each backend; the arguments have been checked. patchify moves a latent to tokens, its vjp tokens to a
// latent; unpatchify is the other way round.
namespace patchify {
void forward(const Move& m, const PatchShape& s);
void backward(const Move& m, const PatchShape& s);
}  // namespace patchify
namespace unpatchify {
void forward(const Move& m, const PatchShape& s);
void backward(const Move& m, const PatchShape& s);
}  // namespace unpatchify

}  // namespace rcm
