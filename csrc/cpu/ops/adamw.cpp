#include "cpu/runtime/common.h"

using namespace rcm;

rcm_status rcm_adamw(void* param, void* master, const void* grad, void* m, void* v, void* ema, const double* grad_sq_sum, int64_t n, double lr,
                     double beta1, double beta2, double eps, double weight_decay, double bias1, double bias2, double grad_scale, double max_norm,
                     double ema_beta, int32_t param_dtype) {
  return guard("adamw", [&] {
    need(param, "param");
    need(grad, "grad");
    need(v, "v");
    size_at_least(n, 0, "n");
    if (m == nullptr && beta1 != 0) fail(RCM_E_ARG, "m: want memory when beta1 is not 0");
    if (master == nullptr && param_dtype != RCM_F32) fail(RCM_E_DTYPE, "param: want f32 when there is no master, got code %d", param_dtype);
    if (param_dtype < RCM_F32 || param_dtype > RCM_F16) fail(RCM_E_DTYPE, "param: want f32, bf16 or f16, got code %d", param_dtype);
    double clip = grad_scale;
    if (max_norm > 0 && grad_sq_sum) {
      const double norm = grad_scale * std::sqrt(*grad_sq_sum);
      if (norm > max_norm) clip *= max_norm / (norm + 1e-6);
    }
    const float scale = (float)clip, b1 = (float)beta1, b2 = (float)beta2, decay = (float)(1 - lr * weight_decay), step = (float)(lr / bias1),
                root = (float)(1 / bias2), e = (float)eps, keep = (float)ema_beta, c1 = (float)(1 - beta1), c2 = (float)(1 - beta2), mix = (float)(1 - ema_beta);
    float* w = static_cast<float*>(master ? master : param);
    const float* g = static_cast<const float*>(grad);
    float *first = static_cast<float*>(m), *second = static_cast<float*>(v), *average = static_cast<float*>(ema);
    parallel_for(n, 1 << 14, [&](int64_t from, int64_t to, int) {
      if (first) {
#pragma omp simd
        for (int64_t i = from; i < to; ++i) {
          const float gi = g[i] * scale, mi = b1 * first[i] + c1 * gi, vi = b2 * second[i] + c2 * gi * gi;
          first[i] = mi;
          second[i] = vi;
          w[i] = decay * w[i] - step * mi / (std::sqrt(vi * root) + e);
        }
      } else {
#pragma omp simd
        for (int64_t i = from; i < to; ++i) {
          const float gi = g[i] * scale, vi = b2 * second[i] + c2 * gi * gi;
          second[i] = vi;
          w[i] = decay * w[i] - step * gi / (std::sqrt(vi * root) + e);
        }
      }
      if (average) {
#pragma omp simd
        for (int64_t i = from; i < to; ++i) average[i] = keep * average[i] + mix * w[i];
      }
      if (master) store_row<float>(param, param_dtype, from, to - from, w + from);
    });
  });
}
