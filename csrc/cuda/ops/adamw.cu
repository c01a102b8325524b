#include "shared/ops/adamw.h"

#include "elementwise.cuh"

namespace rcm::adamw {
namespace {

// w is the master when there is one; `rounded` then receives it in the storage type. m, ema and rounded may be null.
template <class P>
struct AdamW {
  float* w;
  const float* grad;
  float *m, *v, *ema;
  P* rounded;
  float scale;
  Factors k;

  template <int V>
  struct Held {
    Pack<float, V> w, g, m, v, ema;
  };
  template <int V>
  __device__ void load(int64_t i, Held<V>& h) const {
    h.w = fetch<V>(w + i);
    h.g = fetch<V>(grad + i);
    h.v = fetch<V>(v + i);
    if (m) h.m = fetch<V>(m + i);
    if (ema) h.ema = fetch<V>(ema + i);
  }
  __device__ float sample(int64_t) const { return scale; }
  template <int V>
  __device__ void finish(float factor, int64_t i, const Held<V>& h) const {
    float first[V], second[V], weight[V];
#pragma unroll
    for (int j = 0; j < V; ++j) {
      const float g = h.g.v[j] * factor;
      first[j] = m ? k.b1 * h.m.v[j] + k.c1 * g : g;
      second[j] = k.b2 * h.v.v[j] + k.c2 * g * g;
      weight[j] = k.decay * h.w.v[j] - k.step * first[j] / (sqrtf(second[j] * k.root) + k.eps);
    }
    if (m) store_pack<V>(m + i, first);
    store_pack<V>(v + i, second);
    store_pack<V>(w + i, weight);
    if (rounded) store_pack<V>(rounded + i, weight);
    if (ema) {
      float average[V];
#pragma unroll
      for (int j = 0; j < V; ++j) average[j] = k.keep * h.ema.v[j] + k.mix * weight[j];
      store_pack<V>(ema + i, average);
    }
  }
};

template <class P>
void launch(const Buffers& a, const Step& s) {
  float* w = static_cast<float*>(a.master ? a.master : a.param);
  P* rounded = a.master ? static_cast<P*>(a.param) : nullptr;
  const AdamW<P> op{w,
                    static_cast<const float*>(a.grad),
                    static_cast<float*>(a.m),
                    static_cast<float*>(a.v),
                    static_cast<float*>(a.ema),
                    rounded,
                    (float)s.grad_scale,
                    Factors(s)};
  map<4, 1>(op, 1, a.n, pack_aligned<4, float>({w, a.grad, a.m, a.v, a.ema}) && pack_aligned<4, P>({rounded}));
}

}  // namespace

void update(const Buffers& a, const Step& s) {
  if (a.n == 0) return;
  if (a.param_dtype == RCM_F32) launch<float>(a, s);
  else if (a.param_dtype == RCM_BF16) launch<bf16>(a, s);
  else launch<f16>(a, s);
}

}  // namespace rcm::adamw
