#include "elementwise.cuh"
#include "cuda/ptx/math.cuh"
#include "shared/ops/activation.h"

namespace rcm::activation {
namespace {

enum Mode { kFwd, kJvp, kVjp };

// s = 1 / (1 + 2^t) and q = 1 - s, both within a few ulp. The bound keeps 2^t finite: otherwise q would be inf * 0.
__device__ inline void sigmoid2(float t, float& s, float& q) {
  const float e = ptx::exp2_fast(fminf(t, 126.0f));
  s = ptx::inverse_fast(add_exact(1.0f, e));
  q = mul_exact(e, s);
}
__device__ inline void sigmoid2(double t, double& s, double& q) {
  const double e = exp2(fmin(t, 1022.0));
  s = 1.0 / add_exact(1.0, e);
  q = mul_exact(e, s);
}
__device__ inline float gauss(float x) { return ptx::exp2_fast(-0.72134752044448170f * x * x); }
__device__ inline double gauss(double x) { return exp(-0.5 * x * x); }

// Value and derivative. GELU's tanh form is computed as x sigmoid(2 u), u = a (x + b x^3), which stays accurate for
// negative x.
template <int K, class C>
__device__ inline void activate(C x, C& y, C& slope) {
  constexpr C a = (C)0.7978845608028654, b = (C)0.044715, log2e = (C)1.4426950408889634;
  if constexpr (K == kGeluTanh) {
    const C square = mul_exact(x, x);
    C s, q;
    sigmoid2(mul_exact(x, fma(square, -2 * a * b * log2e, -2 * a * log2e)), s, q);
    y = mul_exact(x, s);
    slope = fma(y * q, fma(square, 6 * a * b, 2 * a), s);
  } else if constexpr (K == kGeluErf) {
    const C phi = fma((C)0.5, erf(mul_exact(x, (C)0.7071067811865476)), (C)0.5);
    y = mul_exact(x, phi);
    slope = fma(x * (C)0.3989422804014327, gauss(x), phi);
  } else if constexpr (K == kSilu) {
    C s, q;
    sigmoid2(mul_exact(x, -log2e), s, q);
    y = mul_exact(x, s);
    slope = fma(y, q, s);
  } else {
    y = tanh(x);
    slope = fma(-y, y, (C)1);
  }
}

// `other` and `out` are x_dot and y_dot, or y_bar and x_bar (which may be the same memory).
template <int K, Mode M, class T>
struct Activation {
  using C = compute_t<T>;
  const T *x, *other;
  T *y, *out;

  template <int V>
  struct Held {
    Pack<T, V> x, other;
  };
  template <int V>
  __device__ void load(int64_t i, Held<V>& h) const {
    h.x = fetch<V>(x + i);
    if constexpr (M != kFwd) h.other = fetch<V>(other + i);
  }
  __device__ Nothing sample(int64_t) const { return {}; }
  template <int V>
  __device__ void finish(Nothing, int64_t i, const Held<V>& h) const {
    C value[V], along[V];
#pragma unroll
    for (int j = 0; j < V; ++j) {
      C slope;
      activate<K>((C)load_as(h.x.v[j]), value[j], slope);
      if constexpr (M != kFwd) along[j] = slope * (C)load_as(h.other.v[j]);
    }
    if constexpr (M != kVjp) store_pack<V>(y + i, value);
    if constexpr (M != kFwd) store_pack<V>(out + i, along);
  }
};

template <int K, Mode M, class T>
void launch(const void* x, const void* other, void* y, void* out, int64_t n) {
  constexpr int V = kPack<T>;
  const Activation<K, M, T> op{static_cast<const T*>(x), static_cast<const T*>(other), static_cast<T*>(y),
                               static_cast<T*>(out)};
  map<V, M == kFwd ? 4 : 2>(op, 1, n, pack_aligned<V, T>({x, other, y, out}));
}

template <Mode M>
void run(const void* x, const void* other, void* y, void* out, const Sizes& z) {
  with_dtype(z.dtype, "dtype", [&](auto zero) {
    with_kind(z.kind, [&](auto kind) { launch<decltype(kind)::value, M, decltype(zero)>(x, other, y, out, z.n); });
  });
}

}  // namespace

void forward(const Forward& a, const Sizes& z) {
  if (a.y_dot) run<kJvp>(a.x, a.x_dot, a.y, a.y_dot, z);
  else run<kFwd>(a.x, nullptr, a.y, nullptr, z);
}

void backward(const Backward& a, const Sizes& z) { run<kVjp>(a.x, a.y_bar, nullptr, a.x_bar, z); }

}  // namespace rcm::activation
