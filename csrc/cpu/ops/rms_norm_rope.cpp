#include "norm.h"

using namespace rcm;

namespace {

struct Sizes {
  int64_t B, L, D, K, group;
  int32_t rope, x_dtype, w_dtype, y_dtype;
};

void check(const Sizes& z, const void* cos, const void* sin) {
  size_at_least(z.B, 0, "B");
  size_at_least(z.L, 0, "L");
  size_at_least(z.D, 1, "D");
  if (z.K < 1 || z.D % z.K != 0) fail(RCM_E_SHAPE, "K: want a divisor of D = %lld, got %lld", (long long)z.D, (long long)z.K);
  if (z.group < 1 || z.D % z.group != 0) fail(RCM_E_SHAPE, "group: want a divisor of D = %lld, got %lld", (long long)z.D, (long long)z.group);
  if (z.rope < 0 || z.rope > 2) fail(RCM_E_ARG, "rope: want 0, 1 or 2, got %d", z.rope);
  if (z.rope != 0) {
    need(cos, "cos");
    need(sin, "sin");
    if (z.K % 2 != 0) fail(RCM_E_SHAPE, "K: want an even width for rope, got %lld", (long long)z.K);
  }
}

// Turns every head of a row in place; sign -1 turns back (the transpose).
template <class C>
void turn(C* v, const C* cos, const C* sin, const Sizes& z, C sign) {
  const int64_t half = z.K / 2;
  for (int64_t h = 0; h < z.D; h += z.K) {
    C* u = v + h;
    if (z.rope == 1) {
#pragma omp simd
      for (int64_t i = 0; i < half; ++i) {
        const C a = u[2 * i], b = u[2 * i + 1], s = sign * sin[i];
        u[2 * i] = a * cos[i] - b * s;
        u[2 * i + 1] = a * s + b * cos[i];
      }
    } else {
#pragma omp simd
      for (int64_t i = 0; i < half; ++i) {
        const C a = u[i], b = u[i + half], s = sign * sin[i];
        u[i] = a * cos[i] - b * s;
        u[i + half] = a * s + b * cos[i];
      }
    }
  }
}

template <class C>
void run(const void* x, const void* w, const C* cos, const C* sin, const void* x_dot, void* y, void* y_dot, C* rstd, double eps, const Sizes& z) {
  const int64_t D = z.D, G = z.group, groups = D / G;
  const C* W = load_row<C>(w, z.w_dtype, 0, G, scratch<C>(0, G));
  parallel_for(z.B * z.L, 32, [&](int64_t from, int64_t to, int) {
    for (int64_t r = from; r < to; ++r) {
      const int64_t l = r % z.L;
      const C *c = cos ? cos + l * (z.K / 2) : nullptr, *s = sin ? sin + l * (z.K / 2) : nullptr;
      const C* in = load_row<C>(x, z.x_dtype, r * D, D, scratch<C>(2, D));
      const C* dot = y_dot ? load_row<C>(x_dot, z.x_dtype, r * D, D, scratch<C>(4, D)) : nullptr;
      C* out = row_target<C>(y, z.y_dtype, r * D, scratch<C>(3, D));
      C* out_dot = y_dot ? row_target<C>(y_dot, z.y_dtype, r * D, scratch<C>(5, D)) : nullptr;
      for (int64_t g = 0; g < groups; ++g) {
        const C* u = in + g * G;
        double sum = 0;
#pragma omp simd reduction(+ : sum)
        for (int64_t i = 0; i < G; ++i) sum += (double)u[i] * (double)u[i];
        const C q = (C)(1 / std::sqrt(sum / (double)G + eps));
        rstd[r * groups + g] = q;
        C* o = out + g * G;
#pragma omp simd
        for (int64_t i = 0; i < G; ++i) o[i] = u[i] * q * W[i];
        if (!y_dot) continue;
        const C* d = dot + g * G;
        double cross = 0;
#pragma omp simd reduction(+ : cross)
        for (int64_t i = 0; i < G; ++i) cross += (double)u[i] * (double)d[i];
        const C pull = (C)(cross / (double)G) * q * q;
        C* od = out_dot + g * G;
#pragma omp simd
        for (int64_t i = 0; i < G; ++i) od[i] = q * W[i] * (d[i] - u[i] * pull);
      }
      if (z.rope != 0) {
        turn(out, c, s, z, (C)1);
        if (y_dot) turn(out_dot, c, s, z, (C)1);
      }
      store_row<C>(y, z.y_dtype, r * D, D, out);
      if (y_dot) store_row<C>(y_dot, z.y_dtype, r * D, D, out_dot);
    }
  });
}

void forward(const void* x, const void* w, const void* cos, const void* sin, const void* x_dot, void* y, void* y_dot, void* rstd, double eps,
             const Sizes& z) {
  need(x, "x");
  need(w, "w");
  need(y, "y");
  need(rstd, "rstd");
  check(z, cos, sin);
  with_compute({z.x_dtype, z.w_dtype, z.y_dtype}, [&](auto zero) {
    using C = decltype(zero);
    run<C>(x, w, static_cast<const C*>(cos), static_cast<const C*>(sin), x_dot, y, y_dot, static_cast<C*>(rstd), eps, z);
  });
}

template <class C>
void backward(const void* x, const void* w, const C* cos, const C* sin, const C* rstd, const void* y_bar, void* x_bar, C* w_bar, const Sizes& z) {
  const int64_t D = z.D, G = z.group, groups = D / G;
  const C* W = load_row<C>(w, z.w_dtype, 0, G, scratch<C>(0, G));
  Partials<C> sums = partials<C>(w_bar ? G : 1);
  parallel_for(z.B * z.L, 32, [&](int64_t from, int64_t to, int part) {
    C *dw = sums.of(part), *g_ = scratch<C>(6, D);
    for (int64_t r = from; r < to; ++r) {
      const int64_t l = r % z.L;
      const C* in = load_row<C>(x, z.x_dtype, r * D, D, scratch<C>(2, D));
      const C* bar = load_row<C>(y_bar, z.y_dtype, r * D, D, scratch<C>(4, D));
      std::memcpy(g_, bar, (size_t)D * sizeof(C));
      if (z.rope != 0) turn(g_, cos + l * (z.K / 2), sin + l * (z.K / 2), z, (C)-1);
      C* out = x_bar ? row_target<C>(x_bar, z.x_dtype, r * D, scratch<C>(3, D)) : nullptr;
      for (int64_t g = 0; g < groups; ++g) {
        const C *u = in + g * G, *v = g_ + g * G;
        const C q = rstd[r * groups + g];
        double cross = 0;
#pragma omp simd reduction(+ : cross)
        for (int64_t i = 0; i < G; ++i) cross += (double)(v[i] * W[i]) * (double)u[i];
        if (w_bar) {
#pragma omp simd
          for (int64_t i = 0; i < G; ++i) dw[i] += v[i] * u[i] * q;
        }
        if (!out) continue;
        const C pull = (C)(cross / (double)G) * q * q;
        C* o = out + g * G;
#pragma omp simd
        for (int64_t i = 0; i < G; ++i) o[i] = q * (v[i] * W[i] - u[i] * pull);
      }
      if (out) store_row<C>(x_bar, z.x_dtype, r * D, D, out);
    }
  });
  if (w_bar) sums.add_to(w_bar, 0, G);
}

}  // namespace

rcm_status rcm_rms_norm_rope_fwd(const void* x, const void* w, const void* cos, const void* sin, void* y, void* rstd, int64_t B, int64_t L, int64_t D,
                                 int64_t K, int64_t group, int32_t rope, double eps, int32_t x_dtype, int32_t w_dtype, int32_t y_dtype) {
  return guard("rms_norm_rope_fwd",
               [&] { forward(x, w, cos, sin, nullptr, y, nullptr, rstd, eps, {B, L, D, K, group, rope, x_dtype, w_dtype, y_dtype}); });
}

rcm_status rcm_rms_norm_rope_jvp(const void* x, const void* w, const void* cos, const void* sin, const void* x_dot, void* y, void* y_dot, void* rstd,
                                 int64_t B, int64_t L, int64_t D, int64_t K, int64_t group, int32_t rope, double eps, int32_t x_dtype, int32_t w_dtype,
                                 int32_t y_dtype) {
  return guard("rms_norm_rope_jvp", [&] {
    need(x_dot, "x_dot");
    need(y_dot, "y_dot");
    forward(x, w, cos, sin, x_dot, y, y_dot, rstd, eps, {B, L, D, K, group, rope, x_dtype, w_dtype, y_dtype});
  });
}

rcm_status rcm_rms_norm_rope_vjp(const void* x, const void* w, const void* cos, const void* sin, const void* rstd, const void* y_bar, void* x_bar,
                                 void* w_bar, int64_t B, int64_t L, int64_t D, int64_t K, int64_t group, int32_t rope, int32_t x_dtype, int32_t w_dtype,
                                 int32_t y_dtype) {
  return guard("rms_norm_rope_vjp", [&] {
    need(x, "x");
    need(w, "w");
    need(rstd, "rstd");
    need(y_bar, "y_bar");
    const Sizes z{B, L, D, K, group, rope, x_dtype, w_dtype, y_dtype};
    check(z, cos, sin);
    with_compute({x_dtype, w_dtype, y_dtype}, [&](auto zero) {
      using C = decltype(zero);
      backward<C>(x, w, static_cast<const C*>(cos), static_cast<const C*>(sin), static_cast<const C*>(rstd), y_bar, x_bar, static_cast<C*>(w_bar), z);
    });
  });
}
