#include "shared/ops/adamw.h"

#include "cpu/runtime/common.h"

namespace rcm::adamw {

void update(const Buffers& a, const Step& s) {
  const float scale = (float)s.grad_scale;
  const Factors k(s);
  float* w = static_cast<float*>(a.master ? a.master : a.param);
  const float* g = static_cast<const float*>(a.grad);
  float *m = static_cast<float*>(a.m), *v = static_cast<float*>(a.v), *ema = static_cast<float*>(a.ema);
  parallel_for(a.n, 1 << 14, [&](int64_t from, int64_t to, int) {
    if (m) {
#pragma omp simd
      for (int64_t i = from; i < to; ++i) {
        const float gi = g[i] * scale, mi = k.b1 * m[i] + k.c1 * gi, vi = k.b2 * v[i] + k.c2 * gi * gi;
        m[i] = mi;
        v[i] = vi;
        w[i] = k.decay * w[i] - k.step * mi / (std::sqrt(vi * k.root) + k.eps);
      }
    } else {
#pragma omp simd
      for (int64_t i = from; i < to; ++i) {
        const float gi = g[i] * scale, vi = k.b2 * v[i] + k.c2 * gi * gi;
        v[i] = vi;
        w[i] = k.decay * w[i] - k.step * gi / (std::sqrt(vi * k.root) + k.eps);
      }
    }
    if (ema) {
#pragma omp simd
      for (int64_t i = from; i < to; ++i) ema[i] = k.keep * ema[i] + k.mix * w[i];
    }
    if (a.master) store_row<float>(a.param, a.param_dtype, from, to - from, w + from);
  });
}

}  // namespace rcm::adamw
