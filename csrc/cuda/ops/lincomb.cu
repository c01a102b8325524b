#include "elementwise.cuh"

using namespace rcm;

namespace {

struct Terms {
  const void* x[4];
  int32_t count;
};

void check_terms(const Terms& t, const double* coef, const void* y, int64_t B, int64_t N) {
  if (t.count < 1 || t.count > 4) fail(RCM_E_ARG, "terms: want 1 to 4, got %d", t.count);
  need(coef, "coef");
  need(y, "y");
  size_at_least(B, 0, "B");
  size_at_least(N, 0, "N");
}

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
  // A null term is left out, not multiplied: its coefficient may be anything.
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
void run(const Terms& t, const Terms& dots, const double* coef, const double* coef_dot, void* y, void* y_dot, int64_t B, int64_t N, int32_t dtype) {
  with_dtype(dtype, "dtype", [&](auto zero) {
    using T = decltype(zero);
    constexpr int V = kPack<T>;
    Lincomb<T, Jvp> op{};
    bool vec = pack_aligned<V, T>({y, y_dot});
    for (int k = 0; k < t.count; ++k) {
      op.x[k] = static_cast<const T*>(t.x[k]);
      op.x_dot[k] = static_cast<const T*>(dots.x[k]);
      vec = vec && pack_aligned<V, T>({t.x[k], dots.x[k]});
    }
    op.coef = coef;
    op.coef_dot = coef_dot;
    op.y = static_cast<T*>(y);
    op.y_dot = static_cast<T*>(y_dot);
    op.B = B;
    op.count = t.count;
    map<V, 2>(op, B, N, vec);
  });
}

}  // namespace

rcm_status rcm_lincomb_fwd(const void* x0, const void* x1, const void* x2, const void* x3, const double* coef, void* y, int64_t B, int64_t N,
                           int32_t terms, int32_t dtype) {
  return gpu_call("lincomb_fwd", [&] {
    const Terms t{{x0, x1, x2, x3}, terms};
    check_terms(t, coef, y, B, N);
    run<false>(t, Terms{}, coef, nullptr, y, nullptr, B, N, dtype);
  });
}

rcm_status rcm_lincomb_jvp(const void* x0, const void* x1, const void* x2, const void* x3, const void* x0_dot, const void* x1_dot, const void* x2_dot,
                           const void* x3_dot, const double* coef, const double* coef_dot, void* y, void* y_dot, int64_t B, int64_t N, int32_t terms,
                           int32_t dtype) {
  return gpu_call("lincomb_jvp", [&] {
    const Terms t{{x0, x1, x2, x3}, terms}, dots{{x0_dot, x1_dot, x2_dot, x3_dot}, terms};
    check_terms(t, coef, y, B, N);
    need(y_dot, "y_dot");
    run<true>(t, dots, coef, coef_dot, y, y_dot, B, N, dtype);
  });
}

rcm_status rcm_lincomb_vjp(const void* y_bar, const double* coef, void* x_bar, int64_t B, int64_t N, int32_t term, int32_t dtype) {
  return gpu_call("lincomb_vjp", [&] {
    if (term < 0 || term > 3) fail(RCM_E_ARG, "term: want 0 to 3, got %d", term);
    const Terms t{{y_bar, nullptr, nullptr, nullptr}, 1};
    need(y_bar, "y_bar");
    check_terms(t, coef, x_bar, B, N);
    run<false>(t, Terms{}, coef + term * B, nullptr, x_bar, nullptr, B, N, dtype);
  });
}
