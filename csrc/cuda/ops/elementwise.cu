// Nondifferentiable element-wise helpers: cast, axpy, fill, sample_reduce.
#include "shared/ops/elementwise.h"

#include "elementwise.cuh"

namespace rcm::elementwise {
namespace {

// The compute type of two storage types that need not be of one kind.
template <class A, class Z>
using joint_t = std::conditional_t<std::is_same<A, double>::value || std::is_same<Z, double>::value, double, float>;

template <class S, class D>
struct CastOp {
  const S* src;
  D* dst;

  template <int V>
  struct Held {
    Pack<S, V> v;
  };
  template <int V>
  __device__ void load(int64_t i, Held<V>& h) const {
    h.v = fetch<V>(src + i);
  }
  __device__ Nothing sample(int64_t) const { return {}; }
  template <int V>
  __device__ void finish(Nothing, int64_t i, const Held<V>& h) const {
    joint_t<S, D> out[V];
#pragma unroll
    for (int j = 0; j < V; ++j) out[j] = load_as(h.v.v[j]);
    store_pack<V>(dst + i, out);
  }
};

template <class X, class Y>
struct AxpyOp {
  using C = joint_t<X, Y>;
  const X* x;
  Y* y;
  C a;

  template <int V>
  struct Held {
    Pack<X, V> x;
    Pack<Y, V> y;
  };
  template <int V>
  __device__ void load(int64_t i, Held<V>& h) const {
    h.x = fetch<V>(x + i);
    h.y = fetch<V>(y + i);
  }
  __device__ Nothing sample(int64_t) const { return {}; }
  template <int V>
  __device__ void finish(Nothing, int64_t i, const Held<V>& h) const {
    C out[V];
#pragma unroll
    for (int j = 0; j < V; ++j) out[j] = fma(a, (C)load_as(h.x.v[j]), (C)load_as(h.y.v[j]));
    store_pack<V>(y + i, out);
  }
};

template <class T>
struct FillOp {
  T* out;
  double value;

  template <int V>
  struct Held {};
  template <int V>
  __device__ void load(int64_t, Held<V>&) const {}
  __device__ Nothing sample(int64_t) const { return {}; }
  template <int V>
  __device__ void finish(Nothing, int64_t i, const Held<V>&) const {
    double v[V];
#pragma unroll
    for (int j = 0; j < V; ++j) v[j] = value;
    store_pack<V>(out + i, v);
  }
};

template <int Kind, class T>
struct ReduceOp {
  static constexpr int K = 1;
  const T* x;
  double* out;

  template <int V>
  struct Held {
    Pack<T, V> v;
  };
  template <int V>
  __device__ void load(int64_t i, Held<V>& h) const {
    h.v = fetch<V>(x + i);
  }
  static __device__ void start(double (&state)[1]) { state[0] = 0; }
  static __device__ void merge(double (&state)[1], const double (&other)[1]) { larger_or_sum(state[0], other[0]); }
  template <int V>
  __device__ void fold(const Held<V>& h, double (&state)[1]) const {
#pragma unroll
    for (int j = 0; j < V; ++j) {
      const double v = (double)load_as(h.v.v[j]);
      if constexpr (Kind == kSum) state[0] += v;
      else if constexpr (Kind == kAbsolute) state[0] += fabs(v);
      else if constexpr (Kind == kSquares) state[0] = fma(v, v, state[0]);
      else if constexpr (Kind == kMax) larger_or_sum(state[0], fabs(v));
      else state[0] += isfinite(v) ? 0.0 : 1.0;
    }
  }
  __device__ bool wanted(int64_t) const { return true; }
  __device__ void done(int64_t b, const double (&state)[1]) const { out[b] = state[0]; }

 private:
  // NaN counts as the largest.
  static __device__ void larger_or_sum(double& v, double other) {
    if constexpr (Kind == kMax) v = other > v || other != other ? other : v;
    else v += other;
  }
};

template <int Kind, class T>
void reduce(const Reduce& a) {
  constexpr int V = kPack<T>;
  fold<V>(ReduceOp<Kind, T>{static_cast<const T*>(a.x), a.out}, a.B, a.N, pack_aligned<V, T>({a.x}));
}

}  // namespace

void cast(const Cast& a) {
  with_dtype(a.src_dtype, "src_dtype", [&](auto s) {
    with_dtype(a.dst_dtype, "dst_dtype", [&](auto d) {
      using S = decltype(s);
      using D = decltype(d);
      constexpr int V = kPack<S, D>;
      const bool vec = pack_aligned<V, S>({a.src}) && pack_aligned<V, D>({a.dst});
      map<V, 4>(CastOp<S, D>{static_cast<const S*>(a.src), static_cast<D*>(a.dst)}, 1, a.n, vec);
    });
  });
}

void axpy(const Axpy& a) {
  with_dtype(a.x_dtype, "x_dtype", [&](auto x) {
    with_dtype(a.y_dtype, "y_dtype", [&](auto y) {
      using X = decltype(x);
      using Y = decltype(y);
      constexpr int V = kPack<X, Y>;
      const AxpyOp<X, Y> op{static_cast<const X*>(a.x), static_cast<Y*>(a.y), (joint_t<X, Y>)a.a};
      map<V, 4>(op, 1, a.n, pack_aligned<V, X>({a.x}) && pack_aligned<V, Y>({a.y}));
    });
  });
}

void fill(void* out, int64_t n, double value, int32_t dtype) {
  with_dtype(dtype, "dtype", [&](auto zero) {
    using T = decltype(zero);
    constexpr int V = kPack<T>;
    map<V, 4>(FillOp<T>{static_cast<T*>(out), value}, 1, n, pack_aligned<V, T>({out}));
  });
}

void sample_reduce(const Reduce& a) {
  with_dtype(a.dtype, "dtype", [&](auto zero) {
    using T = decltype(zero);
    switch (a.kind) {
      case kSum: return reduce<kSum, T>(a);
      case kAbsolute: return reduce<kAbsolute, T>(a);
      case kSquares: return reduce<kSquares, T>(a);
      case kMax: return reduce<kMax, T>(a);
      default: return reduce<kNotFinite, T>(a);
    }
  });
}

}  // namespace rcm::elementwise
