// adamw: arguments and checks, the same for both backends.
#pragma once
#include "shared/guard.h"

namespace rcm::adamw {

struct Buffers {
  void *param, *master;
  const void* grad;
  void *m, *v, *ema;
  int64_t n;
  int32_t param_dtype;
};
struct Step {
  double lr, beta1, beta2, eps, weight_decay, bias1, bias2, grad_scale, ema_beta;
};
// The factors of the update as f32, without the gradient's own.
struct Factors {
  float b1, c1, b2, c2, decay, step, root, eps, keep, mix;

  explicit Factors(const Step& s)
      : b1((float)s.beta1),
        c1((float)(1 - s.beta1)),
        b2((float)s.beta2),
        c2((float)(1 - s.beta2)),
        decay((float)(1 - s.lr * s.weight_decay)),
        step((float)(s.lr / s.bias1)),
        root((float)(1 / s.bias2)),
        eps((float)s.eps),
        keep((float)s.ema_beta),
        mix((float)(1 - s.ema_beta)) {}
};

// Defined by each backend; the arguments have been checked.
void update(const Buffers& a, const Step& s);

}  // namespace rcm::adamw
