#include "elementwise.cuh"
#include "shared/ops/lincomb.h"

namespace rcm::lincomb {
namespace {

template <class T, bool Jvp>
struct Lincomb {
  using C = compute_t<T>;
  const T *x[4], *x_dot[4];
  const double *coef, *coef_dot;
  T *y, *y_dot;
  int64_t B;
  int32_t count;

  template <int V>
  struct Held {
    Raw<T, V> x[4], x_dot[Jvp ? 4 : 1];
  };
  struct Sample {
    C c[4], c_dot[4];
  };

  template <int V>
  __device__ void load(int64_t i, Held<V>& h) const {
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      if (x[k]) h.x[k] = load_raw<V>(x[k] + i);
      if constexpr (Jvp) {
        if (x_dot[k]) h.x_dot[k] = load_raw<V>(x_dot[k] + i);
      }
    }
  }
  __device__ Sample sample(int64_t b) const {
    Sample s;
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      s.c[k] = k < count ? (C)coef[k * B + b] : (C)0;
      s.c_dot[k] = Jvp && coef_dot && k < count ? (C)coef_dot[k * B + b] : (C)0;
    }
    return s;
  }
  // A null term is skipped, not multiplied by zero: its coefficient may be NaN or Inf.
  template <int V>
  static __device__ void add(C (&out)[V], const C (&c)[4], const T* const (&from)[4], const Raw<T, V> (&v)[4]) {
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      if (from[k] == nullptr) continue;
      C in[V];
      unpack<V>(v[k], in);
#pragma unroll
      for (int j = 0; j < V; ++j) out[j] = fma(c[k], in[j], out[j]);
    }
  }
  template <int V>
  __device__ void finish(const Sample& s, int64_t i, const Held<V>& h) const {
    C out[V] = {};
    add(out, s.c, x, h.x);
    store_pack<V>(y + i, out);
    if constexpr (Jvp) {
      C dot[V] = {};
      add(dot, s.c, x_dot, h.x_dot);
      if (coef_dot) add(dot, s.c_dot, x, h.x);
      store_pack<V>(y_dot + i, dot);
    }
  }
};

template <bool Jvp>
void run(const Forward& a, const Sizes& z) {
  with_dtype(z.dtype, "dtype", [&](auto zero) {
    using T = decltype(zero);
    constexpr int V = kPack<T>;
    Lincomb<T, Jvp> op{};
    bool vec = pack_aligned<V, T>({a.y, a.y_dot});
    for (int k = 0; k < a.x.count; ++k) {
      op.x[k] = static_cast<const T*>(a.x.x[k]);
      op.x_dot[k] = static_cast<const T*>(a.x_dot.x[k]);
      vec = vec && pack_aligned<V, T>({a.x.x[k], a.x_dot.x[k]});
    }
    op.coef = a.coef;
    op.coef_dot = a.coef_dot;
    op.y = static_cast<T*>(a.y);
    op.y_dot = static_cast<T*>(a.y_dot);
    op.B = z.B;
    op.count = a.x.count;
    map<V, 2>(op, z.B, z.N, vec);
  });
}

}  // namespace

void forward(const Forward& a, const Sizes& z) {
  if (a.y_dot) run<true>(a, z);
  else run<false>(a, z);
}

void backward(const Backward& a, const Sizes& z) {
  const Terms y_bar{{a.y_bar, nullptr, nullptr, nullptr}, 1};
  run<false>({y_bar, {}, a.coef, nullptr, a.x_bar, nullptr}, z);
}

}  // namespace rcm::lincomb
