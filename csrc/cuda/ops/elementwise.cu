// Nondifferentiable element-wise helpers: cast, axpy, fill, sample_reduce.
#include "elementwise.cuh"

using namespace rcm;

namespace {

void float_dtype(int32_t dtype, const char* name) {
  if (dtype < RCM_F32 || dtype > RCM_F64) fail(RCM_E_DTYPE, "%s: want f32, bf16, f16 or f64, got code %d", name, dtype);
}

// What two types that need not be of one kind are computed in.
template <class A, class Z>
using joint_t = typename std::conditional<std::is_same<A, double>::value || std::is_same<Z, double>::value, double, float>::type;

template <class S, class D>
struct Cast {
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
struct Axpy {
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
struct Fill {
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

enum Reduction { kSum, kAbsolute, kSquares, kMax, kNotFinite };

template <int Kind, class T>
struct Reduce {
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
  // A NaN is the largest.
  static __device__ void larger_or_sum(double& v, double other) {
    if constexpr (Kind == kMax) v = other > v || other != other ? other : v;
    else v += other;
  }
};

template <int Kind, class T>
void reduce(const void* x, double* out, int64_t B, int64_t N) {
  constexpr int V = kPack<T>;
  fold<V>(Reduce<Kind, T>{static_cast<const T*>(x), out}, B, N, pack_aligned<V, T>({x}));
}

}  // namespace

rcm_status rcm_cast(const void* src, void* dst, int64_t n, int32_t src_dtype, int32_t dst_dtype) {
  return gpu_call("cast", [&] {
    need(src, "src");
    need(dst, "dst");
    size_at_least(n, 0, "n");
    float_dtype(src_dtype, "src_dtype");
    float_dtype(dst_dtype, "dst_dtype");
    with_dtype(src_dtype, "src_dtype", [&](auto s) {
      with_dtype(dst_dtype, "dst_dtype", [&](auto d) {
        using S = decltype(s);
        using D = decltype(d);
        constexpr int V = kPack<S, D>;
        map<V, 4>(Cast<S, D>{static_cast<const S*>(src), static_cast<D*>(dst)}, 1, n, pack_aligned<V, S>({src}) && pack_aligned<V, D>({dst}));
      });
    });
  });
}

rcm_status rcm_axpy(const void* x, void* y, int64_t n, double a, int32_t x_dtype, int32_t y_dtype) {
  return gpu_call("axpy", [&] {
    need(x, "x");
    need(y, "y");
    size_at_least(n, 0, "n");
    float_dtype(x_dtype, "x_dtype");
    float_dtype(y_dtype, "y_dtype");
    with_dtype(x_dtype, "x_dtype", [&](auto u) {
      with_dtype(y_dtype, "y_dtype", [&](auto w) {
        using X = decltype(u);
        using Y = decltype(w);
        constexpr int V = kPack<X, Y>;
        const Axpy<X, Y> op{static_cast<const X*>(x), static_cast<Y*>(y), (joint_t<X, Y>)a};
        map<V, 4>(op, 1, n, pack_aligned<V, X>({x}) && pack_aligned<V, Y>({y}));
      });
    });
  });
}

rcm_status rcm_fill(void* out, int64_t n, double value, int32_t dtype) {
  return gpu_call("fill", [&] {
    need(out, "out");
    size_at_least(n, 0, "n");
    with_dtype(dtype, "dtype", [&](auto zero) {
      using T = decltype(zero);
      constexpr int V = kPack<T>;
      map<V, 4>(Fill<T>{static_cast<T*>(out), value}, 1, n, pack_aligned<V, T>({out}));
    });
  });
}

rcm_status rcm_sample_reduce(const void* x, double* out, int64_t B, int64_t N, int32_t kind, int32_t dtype) {
  return gpu_call("sample_reduce", [&] {
    need(x, "x");
    need(out, "out");
    size_at_least(B, 0, "B");
    size_at_least(N, 0, "N");
    with_dtype(dtype, "dtype", [&](auto zero) {
      using T = decltype(zero);
      switch (kind) {
        case kSum: return reduce<kSum, T>(x, out, B, N);
        case kAbsolute: return reduce<kAbsolute, T>(x, out, B, N);
        case kSquares: return reduce<kSquares, T>(x, out, B, N);
        case kMax: return reduce<kMax, T>(x, out, B, N);
        case kNotFinite: return reduce<kNotFinite, T>(x, out, B, N);
        default: fail(RCM_E_ARG, "kind: want 0 to 4, got %d", kind);
      }
    });
  });
}
