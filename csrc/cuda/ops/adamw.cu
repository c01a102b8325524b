#include "elementwise.cuh"

using namespace rcm;

namespace {

// What the gradient is multiplied by; the norm is on the device and stays there.
__global__ void gradient_scale(const double* grad_sq_sum, double grad_scale, double max_norm, float* out) {
  await_queued();
  const double norm = grad_scale * sqrt(*grad_sq_sum);
  *out = (float)(norm > max_norm ? grad_scale * (max_norm / (norm + 1e-6)) : grad_scale);
}

// w is the master when there is one, then `rounded` receives it too; null m, ema, rounded: none.
template <class P>
struct AdamW {
  float* w;
  const float* grad;
  float *m, *v, *ema;
  P* rounded;
  const float* clipped;  // null: scale
  float scale, b1, c1, b2, c2, decay, step, root, eps, keep, mix;

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
  __device__ float sample(int64_t) const { return clipped ? *clipped : scale; }
  template <int V>
  __device__ void finish(float factor, int64_t i, const Held<V>& h) const {
    float first[V], second[V], weight[V];
#pragma unroll
    for (int j = 0; j < V; ++j) {
      const float g = h.g.v[j] * factor;
      first[j] = m ? b1 * h.m.v[j] + c1 * g : g;
      second[j] = b2 * h.v.v[j] + c2 * g * g;
      weight[j] = decay * h.w.v[j] - step * first[j] / (sqrtf(second[j] * root) + eps);
    }
    if (m) store_pack<V>(m + i, first);
    store_pack<V>(v + i, second);
    store_pack<V>(w + i, weight);
    if (rounded) store_pack<V>(rounded + i, weight);
    if (ema) {
      float average[V];
#pragma unroll
      for (int j = 0; j < V; ++j) average[j] = keep * h.ema.v[j] + mix * weight[j];
      store_pack<V>(ema + i, average);
    }
  }
};

}  // namespace

rcm_status rcm_adamw(void* param, void* master, const void* grad, void* m, void* v, void* ema, const double* grad_sq_sum, int64_t n, double lr,
                     double beta1, double beta2, double eps, double weight_decay, double bias1, double bias2, double grad_scale, double max_norm,
                     double ema_beta, int32_t param_dtype) {
  return gpu_call("adamw", [&] {
    need(param, "param");
    need(grad, "grad");
    need(v, "v");
    size_at_least(n, 0, "n");
    if (m == nullptr && beta1 != 0) fail(RCM_E_ARG, "m: want memory when beta1 is not 0");
    if (master == nullptr && param_dtype != RCM_F32) fail(RCM_E_DTYPE, "param: want f32 when there is no master, got code %d", param_dtype);
    if (param_dtype < RCM_F32 || param_dtype > RCM_F16) fail(RCM_E_DTYPE, "param: want f32, bf16 or f16, got code %d", param_dtype);
    if (n == 0) return;
    const bool clips = max_norm > 0 && grad_sq_sum;
    const Workspace factor(clips ? sizeof(float) : 0);
    if (clips) queue_kernel(gradient_scale, 1, 1, 0, grad_sq_sum, grad_scale, max_norm, factor.as<float>());
    auto run = [&](auto zero) {
      using P = decltype(zero);
      AdamW<P> op{};
      op.w = static_cast<float*>(master ? master : param);
      op.grad = static_cast<const float*>(grad);
      op.m = static_cast<float*>(m);
      op.v = static_cast<float*>(v);
      op.ema = static_cast<float*>(ema);
      op.rounded = master ? static_cast<P*>(param) : nullptr;
      op.clipped = clips ? factor.as<float>() : nullptr;
      op.scale = (float)grad_scale;
      op.b1 = (float)beta1;
      op.c1 = (float)(1 - beta1);
      op.b2 = (float)beta2;
      op.c2 = (float)(1 - beta2);
      op.decay = (float)(1 - lr * weight_decay);
      op.step = (float)(lr / bias1);
      op.root = (float)(1 / bias2);
      op.eps = (float)eps;
      op.keep = (float)ema_beta;
      op.mix = (float)(1 - ema_beta);
      map<4, 1>(op, 1, n, pack_aligned<4, float>({op.w, grad, m, v, ema}) && pack_aligned<4, P>({op.rounded}));
    };
    if (param_dtype == RCM_F32) run(float{});
    else if (param_dtype == RCM_BF16) run(bf16{});
    else run(f16{});
  });
}
