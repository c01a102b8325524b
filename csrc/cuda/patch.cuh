// The permutation between a latent [B,C,T,Y,X] and its patches [B,L,P].
#pragma once
#include "elementwise.cuh"

namespace rcm {

struct PatchShape {
  int64_t B, C, T, Y, X, pt, py, px;
  int32_t order;
};

inline void check(const PatchShape& s) {
  size_at_least(s.B, 0, "B");
  size_at_least(s.C, 0, "C");
  if (s.pt < 1 || s.py < 1 || s.px < 1) fail(RCM_E_SHAPE, "patch: want at least 1 in every axis");
  if (s.T < 0 || s.Y < 0 || s.X < 0 || s.T % s.pt || s.Y % s.py || s.X % s.px) {
    fail(RCM_E_SHAPE, "latent: want whole patches of %lld x %lld x %lld, got %lld x %lld x %lld", (long long)s.pt, (long long)s.py, (long long)s.px,
         (long long)s.T, (long long)s.Y, (long long)s.X);
  }
  if (s.order < 0 || s.order > 1) fail(RCM_E_ARG, "order: want 0 or 1, got %d", s.order);
}

// One element a thread in the order of the latent, so that the wider strides fall on the tokens, which stay in L2.
template <class A, class Z, bool ToTokens>
__global__ void __launch_bounds__(kThreads) permute_kernel(const A* from, Z* to, PatchShape s, int64_t n) {
  const int64_t i = (int64_t)blockIdx.x * kThreads + threadIdx.x;
  if (i >= n) return;
  const int64_t x = i % s.X, y = i / s.X % s.Y, t = i / (s.X * s.Y) % s.T, c = i / (s.X * s.Y * s.T) % s.C, b = i / (s.X * s.Y * s.T * s.C);
  const int64_t tx = s.X / s.px, ty = s.Y / s.py, tt = s.T / s.pt, V = s.pt * s.py * s.px;
  const int64_t token = ((b * tt + t / s.pt) * ty + y / s.py) * tx + x / s.px;
  const int64_t v = (t % s.pt * s.py + y % s.py) * s.px + x % s.px;
  const int64_t at = token * s.C * V + (s.order == 0 ? c * V + v : v * s.C + c);
  if constexpr (ToTokens) to[at] = store_as<Z>(load_as(from[i]));
  else to[i] = store_as<Z>(load_as(from[at]));
}

// to_tokens: from is the latent, else from is the tokens; dtypes may differ.
inline void permute(const void* from, void* to, bool to_tokens, const PatchShape& s, int32_t from_dtype, int32_t to_dtype) {
  check(s);
  const int64_t n = s.B * s.C * s.T * s.Y * s.X, blocks = ceil_div(n, kThreads);
  if (blocks > INT32_MAX) fail(RCM_E_SHAPE, "%lld elements are too many for one call", (long long)n);
  with_dtype(from_dtype, "x", [&](auto a) {
    with_dtype(to_dtype, "y", [&](auto z) {
      using A = decltype(a);
      using Z = decltype(z);
      const A* in = static_cast<const A*>(from);
      Z* out = static_cast<Z*>(to);
      if (n == 0) return;
      if (to_tokens) permute_kernel<A, Z, true><<<(unsigned)blocks, kThreads, 0, stream()>>>(in, out, s, n);
      else permute_kernel<A, Z, false><<<(unsigned)blocks, kThreads, 0, stream()>>>(in, out, s, n);
    });
  });
}

}  // namespace rcm
