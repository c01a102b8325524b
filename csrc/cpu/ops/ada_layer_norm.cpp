#include "norm.h"
#include "shared/ops/ada_layer_norm.h"

namespace rcm::ada_layer_norm {
namespace {

template <class C>
void run(const Forward& a, const Sizes& z) {
  const C *shift = static_cast<const C*>(a.shift), *scale = static_cast<const C*>(a.scale);
  const C *shift_dot = static_cast<const C*>(a.shift_dot), *scale_dot = static_cast<const C*>(a.scale_dot);
  const void *x = a.x, *x_dot = a.x_dot;
  void *y = a.y, *y_dot = a.y_dot;
  C *mean = static_cast<C*>(a.mean), *rstd = static_cast<C*>(a.rstd);
  const int64_t D = z.D;
  parallel_for(z.B * z.L, 32, [&](int64_t from, int64_t to, int) {
    for (int64_t r = from; r < to; ++r) {
      const int64_t mod = r / z.L * z.stride;
      const C *sh = shift + mod, *sc = scale + mod;
      const C* in = load_row<C>(x, z.x_dtype, r * D, D, scratch<C>(2, D));
      const RowStats<C> s = row_stats(in, D, a.eps);
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

// With enough samples a thread takes whole samples and owns their modulation cotangents; else each sample is split by
// rows.
template <class C>
void run_backward(const Backward& a, const Sizes& z) {
  const C *scale = static_cast<const C*>(a.scale), *mean = static_cast<const C*>(a.mean),
          *rstd = static_cast<const C*>(a.rstd);
  const void *x = a.x, *y_bar = a.y_bar;
  void* x_bar = a.x_bar;
  C *shift_bar = static_cast<C*>(a.shift_bar), *scale_bar = static_cast<C*>(a.scale_bar);
  const int64_t D = z.D;
  const bool mods = shift_bar || scale_bar;
  auto rows = [&](int64_t b, int64_t from, int64_t to, C* dsh, C* dsc) {
    const C* sc = scale + b * z.stride;
    C *h = scratch<C>(6, D), *g = scratch<C>(7, D);
    for (int64_t r = from; r < to; ++r) {
      const C* in = load_row<C>(x, z.x_dtype, r * D, D, scratch<C>(2, D));
      const C* bar = load_row<C>(y_bar, z.y_dtype, r * D, D, scratch<C>(4, D));
      const C m = mean[r], s = rstd[r];
      double g_sum = 0, gh_sum = 0;
#pragma omp simd reduction(+ : g_sum, gh_sum)
      for (int64_t i = 0; i < D; ++i) {
        h[i] = (in[i] - m) * s;
        g[i] = bar[i] * (1 + sc[i]);
        g_sum += (double)g[i];
        gh_sum += (double)(g[i] * h[i]);
      }
      if (mods) {
#pragma omp simd
        for (int64_t i = 0; i < D; ++i) {
          dsc[i] += bar[i] * h[i];
          dsh[i] += bar[i];
        }
      }
      if (!x_bar) continue;
      const C g_mean = (C)(g_sum / (double)D), gh_mean = (C)(gh_sum / (double)D);
      C* out = row_target<C>(x_bar, z.x_dtype, r * D, scratch<C>(3, D));
#pragma omp simd
      for (int64_t i = 0; i < D; ++i) out[i] = s * (g[i] - g_mean - h[i] * gh_mean);
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
    parallel_for(z.L, 32, [&](int64_t from, int64_t to, int part) {
      rows(b, b * z.L + from, b * z.L + to, sums.of(part), sums.of(part) + D);
    });
    C* total = scratch<C>(10, 2 * D);
    std::memset(total, 0, (size_t)(2 * D) * sizeof(C));
    sums.add_to(total, 0, 2 * D);
    add(b, total, total + D);
  }
}

}  // namespace

void forward(const Forward& a, const Sizes& z) {
  with_compute({z.x_dtype, z.y_dtype}, [&](auto zero) { run<decltype(zero)>(a, z); });
}

void backward(const Backward& a, const Sizes& z) {
  with_compute({z.x_dtype, z.y_dtype}, [&](auto zero) { run_backward<decltype(zero)>(a, z); });
}

}  // namespace rcm::ada_layer_norm
