#include "shared/ops/adamw.h"

using namespace rcm;

rcm_status rcm_adamw(void* param, void* master, const void* grad, void* m, void* v, void* ema, int64_t n, double lr,
                     double beta1, double beta2, double eps, double weight_decay, double bias1, double bias2,
                     double grad_scale, double ema_beta, int32_t param_dtype) {
  return op_call("adamw", [&] {
    need(param, "param");
    need(grad, "grad");
    need(v, "v");
    size_at_least(n, 0, "n");
    if (m == nullptr && beta1 != 0) fail(RCM_E_ARG, "m: want memory when beta1 is not 0");
    if (param_dtype < RCM_F32 || param_dtype > RCM_F16)
      fail(RCM_E_DTYPE, "param: want f32, bf16 or f16, got code %d", param_dtype);
    if (master == nullptr && param_dtype != RCM_F32) {
      fail(RCM_E_DTYPE, "param: want f32 when there is no master, got code %d", param_dtype);
    }
    adamw::update({param, master, grad, m, v, ema, n, param_dtype},
                  {lr, beta1, beta2, eps, weight_decay, bias1, bias2, grad_scale, ema_beta});
  });
}
