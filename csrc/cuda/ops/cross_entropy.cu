#include "elementwise.cuh"
#include "shared/ops/cross_entropy.h"

namespace rcm::cross_entropy {
namespace {

// State: the largest logit m, the sum s of exp(x - m) and, with a tangent, the sum of exp(x - m) x_dot; one pass over
// the row.
template <int States>
struct Running {
  static constexpr int K = States;
  static __device__ void start(double (&state)[K]) {
#pragma unroll
    for (int k = 0; k < K; ++k) state[k] = k == 0 ? -INFINITY : 0.0;
  }
  static __device__ void merge(double (&state)[K], const double (&other)[K]) {
    const double m = other[0] > state[0] ? other[0] : state[0];
    const double a = state[0] == m ? 1.0 : exp(state[0] - m), b = other[0] == m ? 1.0 : exp(other[0] - m);
    state[0] = m;
#pragma unroll
    for (int k = 1; k < K; ++k) state[k] = fma(state[k], a, mul_exact(other[k], b));
  }
  // A logit of +inf gives NaN (x - x), as the formula does; one of -inf contributes nothing, even while m is still
  // -inf.
  static __device__ void put(double x, double x_dot, double (&state)[K]) {
    if (x == -INFINITY) return;
    const bool larger = x > state[0];
    const double e = exp(larger ? state[0] - x : x - state[0]), a = larger ? e : 1.0, b = larger ? 1.0 + (x - x) : e;
    if (larger) state[0] = x;
    state[1] = fma(state[1], a, b);
    if constexpr (K == 3) state[2] = fma(state[2], a, b * x_dot);
  }
};

template <class T>
__device__ inline double logit(const T* x, const int32_t* label, int64_t b, int64_t N) {
  const int64_t at = label[b];
  return at >= 0 && at < N ? (double)load_as(x[b * N + at]) : (double)NAN;
}

template <class T, bool Jvp>
struct Entropy : Running<Jvp ? 3 : 2> {
  using Base = Running<Jvp ? 3 : 2>;
  const T *x, *x_dot;
  const int32_t* label;
  double *loss, *loss_dot;
  int64_t N;
  bool dot_vec;

  template <int V>
  struct Held {
    Pack<T, V> x, x_dot;
  };
  template <int V>
  __device__ void load(int64_t i, Held<V>& h) const {
    h.x = fetch<V>(x + i);
    if constexpr (Jvp) h.x_dot = fetch_or_zero<V>(x_dot, i, dot_vec);
  }
  template <int V>
  __device__ void fold(const Held<V>& h, double (&state)[Base::K]) const {
#pragma unroll
    for (int j = 0; j < V; ++j) Base::put((double)load_as(h.x.v[j]), Jvp ? (double)load_as(h.x_dot.v[j]) : 0.0, state);
  }
  __device__ bool wanted(int64_t) const { return true; }
  __device__ void done(int64_t b, const double (&state)[Base::K]) const {
    loss[b] = add_exact(add_exact(state[0], log(state[1])), -logit(x, label, b, N));
    if constexpr (Jvp) loss_dot[b] = state[2] / state[1] - logit(x_dot, label, b, N);
  }
};

// m and s of every row, for the vjp.
template <class T>
struct Norms : Running<2> {
  const T* x;
  double* norms;

  template <int V>
  struct Held {
    Pack<T, V> x;
  };
  template <int V>
  __device__ void load(int64_t i, Held<V>& h) const {
    h.x = fetch<V>(x + i);
  }
  template <int V>
  __device__ void fold(const Held<V>& h, double (&state)[2]) const {
#pragma unroll
    for (int j = 0; j < V; ++j) put((double)load_as(h.x.v[j]), 0.0, state);
  }
  __device__ bool wanted(int64_t) const { return true; }
  __device__ void done(int64_t b, const double (&state)[2]) const {
    norms[2 * b] = state[0];
    norms[2 * b + 1] = state[1];
  }
};

template <class T>
struct EntropyBack {
  const T* x;
  const int32_t* label;
  const double *norms, *loss_bar;
  T* x_bar;
  int64_t N;

  template <int V>
  struct Held {
    Pack<T, V> x;
  };
  struct Sample {
    double m, inverse, bar;
    int64_t hot;
  };
  template <int V>
  __device__ void load(int64_t i, Held<V>& h) const {
    h.x = fetch<V>(x + i);
  }
  __device__ Sample sample(int64_t b) const {
    return {norms[2 * b], 1.0 / norms[2 * b + 1], loss_bar[b], b * N + label[b]};
  }
  template <int V>
  __device__ void finish(const Sample& s, int64_t i, const Held<V>& h) const {
    double out[V];
#pragma unroll
    for (int j = 0; j < V; ++j)
      out[j] = s.bar * (exp((double)load_as(h.x.v[j]) - s.m) * s.inverse - (i + j == s.hot ? 1.0 : 0.0));
    store_pack<V>(x_bar + i, out);
  }
};

template <bool Jvp>
void run(const Forward& a, const Sizes& z) {
  with_dtype(z.dtype, "dtype", [&](auto zero) {
    using T = decltype(zero);
    constexpr int V = kPack<T>;
    const T *x = static_cast<const T*>(a.x), *x_dot = static_cast<const T*>(a.x_dot);
    const Entropy<T, Jvp> op{{}, x, x_dot, a.label, a.loss, a.loss_dot, z.N, pack_aligned<V, T>({x_dot})};
    fold<V>(op, z.B, z.N, pack_aligned<V, T>({x}));
  });
}

}  // namespace

void forward(const Forward& a, const Sizes& z) {
  if (a.loss_dot) run<true>(a, z);
  else run<false>(a, z);
}

void backward(const Backward& a, const Sizes& z) {
  with_dtype(z.dtype, "dtype", [&](auto zero) {
    using T = decltype(zero);
    constexpr int V = kPack<T>;
    const T* x = static_cast<const T*>(a.x);
    if (z.B == 0) return;
    const Workspace norms((size_t)(2 * z.B) * sizeof(double));
    fold<V>(Norms<T>{{}, x, norms.as<double>()}, z.B, z.N, pack_aligned<V, T>({x}));
    const EntropyBack<T> op{x, a.label, norms.as<double>(), a.loss_bar, static_cast<T*>(a.x_bar), z.N};
    map<V, 2>(op, z.B, z.N, pack_aligned<V, T>({x, a.x_bar}));
  });
}

}  // namespace rcm::cross_entropy
