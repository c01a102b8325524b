#include "elementwise.cuh"
#include "shared/ops/sq_loss.h"

namespace rcm::sq_loss {
namespace {

// 16-bit floats widened to f64 by moving bits, because the conversion instruction runs at a quarter of the rate: the
// exponent field is widened without adjusting its bias, so the value is too small by a fixed power of two until `less`
// scales it. Only for finite values: Inf and NaN would come out finite.
template <bool Bf16>
struct Widen {
  // The 16-bit float in the upper half of `bits`.
  static __device__ double upper(uint32_t bits) {
    return __hiloint2double((int)((uint32_t)((int)bits >> (Bf16 ? 3 : 6)) & (Bf16 ? 0x8fffe000u : 0x81fffc00u)), 0);
  }
  // v scaled to its true size, minus c.
  static __device__ double less(double v, double c) { return fma(v, Bf16 ? 0x1p896 : 0x1p1008, -c); }
};

template <class T>
struct Residual {
  const T *x, *target, *delta;

  template <int V>
  struct Held {
    Raw<T, V> x, target, delta;
  };
  template <int V>
  __device__ void load(int64_t i, Held<V>& h) const {
    h.x = load_raw<V>(x + i);
    h.target = raw_or_zero<V>(target, i);
    h.delta = raw_or_zero<V>(delta, i);
  }
  template <int V>
  static __device__ void values(const Held<V>& h, double (&out)[V]) {
    compute_t<T> a[V], b[V], c[V];
    unpack<V>(h.delta, c);
    if constexpr (sizeof(T) == 2 && V % 2 == 0) {
      if (finite<V>(h)) {
        using W = Widen<std::is_same<T, bf16>::value>;
        // Scaling by a power of two within the range of f64 is exact, so this gives the same bits as the path below.
#pragma unroll
        for (int j = 0; j < V; ++j) {
          const uint32_t x = h.x.u[j / 2], target = h.target.u[j / 2];
          out[j] = W::less(j % 2 ? W::upper(x) - W::upper(target) : W::upper(x << 16) - W::upper(target << 16),
                           (double)c[j]);
        }
        return;
      }
    }
    unpack<V>(h.x, a);
    unpack<V>(h.target, b);
#pragma unroll
    for (int j = 0; j < V; ++j) out[j] = ((double)a[j] - (double)b[j]) - (double)c[j];
  }
  // Whether x and target are finite: 0 * Inf and 0 * NaN are NaN, so the sum is 0 only if all values are.
  template <int V>
  static __device__ bool finite(const Held<V>& h) {
    using Two = std::conditional_t<std::is_same<T, bf16>::value, __nv_bfloat162, __half2>;
    Two sum{};
    const Two zero{};
#pragma unroll
    for (int i = 0; i < V / 2; ++i) {
      Two x, target;
      memcpy(&x, &h.x.u[i], 4);
      memcpy(&target, &h.target.u[i], 4);
      sum = __hfma2(target, zero, __hfma2(x, zero, sum));
    }
    return (bits_of(sum) & 0x7fff7fffu) == 0;
  }
};

// State: sum of r^2 and, with a tangent, of r x_dot. How x is read does not depend on x_dot, so the primal equals that
// of _fwd.
template <class T, bool Jvp>
struct Loss {
  static constexpr int K = Jvp ? 2 : 1;
  Residual<T> r;
  const T* x_dot;
  const double* weight;
  double *loss, *loss_dot;
  bool dot_vec;

  template <int V>
  struct Held {
    typename Residual<T>::template Held<V> r;
    Raw<T, V> x_dot;
  };
  template <int V>
  __device__ void load(int64_t i, Held<V>& h) const {
    r.load(i, h.r);
    if constexpr (Jvp) h.x_dot = raw_or_zero<V>(x_dot, i, dot_vec);
  }
  static __device__ void start(double (&state)[K]) {
#pragma unroll
    for (int k = 0; k < K; ++k) state[k] = 0;
  }
  static __device__ void merge(double (&state)[K], const double (&other)[K]) {
#pragma unroll
    for (int k = 0; k < K; ++k) state[k] += other[k];
  }
  template <int V>
  __device__ void fold(const Held<V>& h, double (&state)[K]) const {
    double v[V];
    Residual<T>::values(h.r, v);
#pragma unroll
    for (int j = 0; j < V; ++j) state[0] = fma(v[j], v[j], state[0]);
    if constexpr (Jvp) {
      compute_t<T> dot[V];
      unpack<V>(h.x_dot, dot);
#pragma unroll
      for (int j = 0; j < V; ++j) state[1] = fma(v[j], (double)dot[j], state[1]);
    }
  }
  __device__ bool wanted(int64_t b) const { return weight[b] != 0; }
  __device__ void done(int64_t b, const double (&state)[K]) const {
    loss[b] = weight[b] * state[0];
    if constexpr (Jvp) loss_dot[b] = 2 * weight[b] * state[1];
  }
};

template <class T>
struct LossBack {
  Residual<T> r;
  const double *weight, *loss_bar;
  T* x_bar;

  template <int V>
  struct Held {
    typename Residual<T>::template Held<V> r;
  };
  struct Sample {
    double a;
    bool dropped;
  };
  template <int V>
  __device__ void load(int64_t i, Held<V>& h) const {
    r.load(i, h.r);
  }
  __device__ Sample sample(int64_t b) const { return {2 * weight[b] * loss_bar[b], weight[b] == 0}; }
  template <int V>
  __device__ void finish(const Sample& s, int64_t i, const Held<V>& h) const {
    double out[V];
    Residual<T>::values(h.r, out);
#pragma unroll
    for (int j = 0; j < V; ++j) out[j] = s.dropped ? 0.0 : s.a * out[j];
    store_pack<V>(x_bar + i, out);
  }
};

template <class T>
Residual<T> residual(const void* x, const void* target, const void* delta) {
  return {static_cast<const T*>(x), static_cast<const T*>(target), static_cast<const T*>(delta)};
}

template <bool Jvp>
void run(const Forward& a, const Sizes& z) {
  with_dtype(z.dtype, "dtype", [&](auto zero) {
    using T = decltype(zero);
    constexpr int V = kPack<T>;
    const Loss<T, Jvp> op{
        residual<T>(a.x, a.target, a.delta), static_cast<const T*>(a.x_dot), a.weight, a.loss, a.loss_dot,
        pack_aligned<V, T>({a.x_dot})};
    fold<V>(op, z.B, z.N, pack_aligned<V, T>({a.x, a.target, a.delta}));
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
    const LossBack<T> op{residual<T>(a.x, a.target, a.delta), a.weight, a.loss_bar, static_cast<T*>(a.x_bar)};
    map<V, 2>(op, z.B, z.N, pack_aligned<V, T>({a.x, a.target, a.delta, a.x_bar}));
  });
}

}  // namespace rcm::sq_loss
