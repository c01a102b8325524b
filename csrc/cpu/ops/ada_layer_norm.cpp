#include "norm.h"

using namespace rcm;

namespace {

struct Sizes {
  int64_t B, L, D, stride;
  int32_t x_dtype, y_dtype;
};

void check(const Sizes& s) {
  size_at_least(s.B, 0, "B");
  size_at_least(s.L, 0, "L");
  size_at_least(s.D, 1, "D");
  if (s.B > 1) size_at_least(s.stride, s.D, "mod_stride");
}

template <class C>
void run(const void* x, const C* shift, const C* scale, const void* x_dot, const C* shift_dot, const C* scale_dot, void* y, void* y_dot, C* mean, C* rstd,
         double eps, const Sizes& z) {
  const int64_t D = z.D;
  parallel_for(z.B * z.L, 32, [&](int64_t from, int64_t to, int) {
    for (int64_t r = from; r < to; ++r) {
      const int64_t mod = r / z.L * z.stride;
      const C *sh = shift + mod, *sc = scale + mod;
      const C* in = load_row<C>(x, z.x_dtype, r * D, D, scratch<C>(2, D));
      const RowStats<C> s = row_stats(in, D, eps);
      mean[r] = s.mean;
      rstd[r] = s.rstd;
      C* out = row_target<C>(y, z.y_dtype, r * D, scratch<C>(3, D));
#pragma omp simd
      for (int64_t i = 0; i < D; ++i) out[i] = (in[i] - s.mean) * s.rstd * (1 + sc[i]) + sh[i];
      store_row<C>(y, z.y_dtype, r * D, D, out);
      if (!y_dot) continue;
      C* out_dot = row_target<C>(y_dot, z.y_dtype, r * D, scratch<C>(3, D));
      if (x_dot) {
        xhat_dot_row(in, load_row<C>(x_dot, z.x_dtype, r * D, D, scratch<C>(4, D)), s, D, out_dot);
#pragma omp simd
        for (int64_t i = 0; i < D; ++i) out_dot[i] *= 1 + sc[i];
      } else {
        std::memset(out_dot, 0, (size_t)D * sizeof(C));
      }
      if (scale_dot) {
        const C* v = scale_dot + mod;
#pragma omp simd
        for (int64_t i = 0; i < D; ++i) out_dot[i] += (in[i] - s.mean) * s.rstd * v[i];
      }
      if (shift_dot) {
        const C* v = shift_dot + mod;
#pragma omp simd
        for (int64_t i = 0; i < D; ++i) out_dot[i] += v[i];
      }
      store_row<C>(y_dot, z.y_dtype, r * D, D, out_dot);
    }
  });
}

void forward(const void* x, const void* shift, const void* scale, const void* x_dot, const void* shift_dot, const void* scale_dot, void* y, void* y_dot,
             void* mean, void* rstd, double eps, const Sizes& z) {
  need(x, "x");
  need(shift, "shift");
  need(scale, "scale");
  need(y, "y");
  need(mean, "mean");
  need(rstd, "rstd");
  check(z);
  with_compute({z.x_dtype, z.y_dtype}, [&](auto zero) {
    using C = decltype(zero);
    auto c = [](const void* p) { return static_cast<const C*>(p); };
    run<C>(x, c(shift), c(scale), x_dot, c(shift_dot), c(scale_dot), y, y_dot, static_cast<C*>(mean), static_cast<C*>(rstd), eps, z);
  });
}

// Samples are the unit of work, so each thread owns the modulation cotangents of its samples.
template <class C>
void backward(const void* x, const C* scale, const C* mean, const C* rstd, const void* y_bar, void* x_bar, C* shift_bar, C* scale_bar, const Sizes& z) {
  const int64_t D = z.D;
  const bool mods = shift_bar || scale_bar;
  auto rows = [&](int64_t b, int64_t from, int64_t to, C* dsh, C* dsc) {
    const C* sc = scale + b * z.stride;
    C *h = scratch<C>(6, D), *g = scratch<C>(7, D);
    for (int64_t r = from; r < to; ++r) {
      const C* in = load_row<C>(x, z.x_dtype, r * D, D, scratch<C>(2, D));
      const C* bar = load_row<C>(y_bar, z.y_dtype, r * D, D, scratch<C>(4, D));
      const C m = mean[r], s = rstd[r];
      double a = 0, c = 0;
#pragma omp simd reduction(+ : a, c)
      for (int64_t i = 0; i < D; ++i) {
        h[i] = (in[i] - m) * s;
        g[i] = bar[i] * (1 + sc[i]);
        a += (double)g[i];
        c += (double)(g[i] * h[i]);
      }
      if (mods) {
#pragma omp simd
        for (int64_t i = 0; i < D; ++i) {
          dsc[i] += bar[i] * h[i];
          dsh[i] += bar[i];
        }
      }
      if (!x_bar) continue;
      const C ma = (C)(a / (double)D), mc = (C)(c / (double)D);
      C* out = row_target<C>(x_bar, z.x_dtype, r * D, scratch<C>(3, D));
#pragma omp simd
      for (int64_t i = 0; i < D; ++i) out[i] = s * (g[i] - ma - h[i] * mc);
      store_row<C>(x_bar, z.x_dtype, r * D, D, out);
    }
  };
  auto add = [&](int64_t b, const C* dsh, const C* dsc) {
    for (int64_t i = 0; i < D; ++i) {
      if (shift_bar) shift_bar[b * z.stride + i] += dsh[i];
      if (scale_bar) scale_bar[b * z.stride + i] += dsc[i];
    }
  };
  if (z.B >= threads()) {
    parallel_for(z.B, 1, [&](int64_t from, int64_t to, int) {
      C *dsh = scratch<C>(8, D), *dsc = scratch<C>(9, D);
      for (int64_t b = from; b < to; ++b) {
        std::memset(dsh, 0, (size_t)D * sizeof(C));
        std::memset(dsc, 0, (size_t)D * sizeof(C));
        rows(b, b * z.L, (b + 1) * z.L, dsh, dsc);
        add(b, dsh, dsc);
      }
    });
    return;
  }
  for (int64_t b = 0; b < z.B; ++b) {
    Partials<C> sums = partials<C>(2 * D);
    parallel_for(z.L, 32, [&](int64_t from, int64_t to, int part) { rows(b, b * z.L + from, b * z.L + to, sums.of(part), sums.of(part) + D); });
    C* total = scratch<C>(10, 2 * D);
    std::memset(total, 0, (size_t)(2 * D) * sizeof(C));
    sums.add_to(total, 0, 2 * D);
    add(b, total, total + D);
  }
}

}  // namespace

rcm_status rcm_ada_layer_norm_fwd(const void* x, const void* shift, const void* scale, void* y, void* mean, void* rstd, int64_t B, int64_t L, int64_t D,
                                  int64_t mod_stride, double eps, int32_t x_dtype, int32_t y_dtype) {
  return guard("ada_layer_norm_fwd",
               [&] { forward(x, shift, scale, nullptr, nullptr, nullptr, y, nullptr, mean, rstd, eps, {B, L, D, mod_stride, x_dtype, y_dtype}); });
}

rcm_status rcm_ada_layer_norm_jvp(const void* x, const void* shift, const void* scale, const void* x_dot, const void* shift_dot, const void* scale_dot,
                                  void* y, void* y_dot, void* mean, void* rstd, int64_t B, int64_t L, int64_t D, int64_t mod_stride, double eps,
                                  int32_t x_dtype, int32_t y_dtype) {
  return guard("ada_layer_norm_jvp", [&] {
    need(y_dot, "y_dot");
    forward(x, shift, scale, x_dot, shift_dot, scale_dot, y, y_dot, mean, rstd, eps, {B, L, D, mod_stride, x_dtype, y_dtype});
  });
}

rcm_status rcm_ada_layer_norm_vjp(const void* x, const void* scale, const void* mean, const void* rstd, const void* y_bar, void* x_bar, void* shift_bar,
                                  void* scale_bar, int64_t B, int64_t L, int64_t D, int64_t mod_stride, int32_t x_dtype, int32_t y_dtype) {
  return guard("ada_layer_norm_vjp", [&] {
    need(x, "x");
    need(scale, "scale");
    need(mean, "mean");
    need(rstd, "rstd");
    need(y_bar, "y_bar");
    const Sizes z{B, L, D, mod_stride, x_dtype, y_dtype};
    check(z);
    with_compute({x_dtype, y_dtype}, [&](auto zero) {
      using C = decltype(zero);
      backward<C>(x, static_cast<const C*>(scale), static_cast<const C*>(mean), static_cast<const C*>(rstd), y_bar, x_bar, static_cast<C*>(shift_bar),
                  static_cast<C*>(scale_bar), z);
    });
  });
}
