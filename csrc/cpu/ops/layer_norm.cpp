#include "norm.h"
#include "shared/ops/layer_norm.h"

namespace rcm::layer_norm {
namespace {

template <class C>
void run(const Forward& a, const Sizes& z) {
  const int64_t N = z.N;
  const C* w = a.w ? load_row<C>(a.w, z.w_dtype, 0, N, scratch<C>(0, N)) : nullptr;
  const C* b = a.b ? load_row<C>(a.b, z.w_dtype, 0, N, scratch<C>(1, N)) : nullptr;
  C *mean = static_cast<C*>(a.mean), *rstd = static_cast<C*>(a.rstd);
  parallel_for(z.M, 32, [&](int64_t from, int64_t to, int) {
    for (int64_t r = from; r < to; ++r) {
      const C* in = load_row<C>(a.x, z.x_dtype, r * N, N, scratch<C>(2, N));
      const RowStats<C> s = row_stats(in, N, a.eps);
      mean[r] = s.mean;
      rstd[r] = s.rstd;
      C* out = row_target<C>(a.y, z.y_dtype, r * N, scratch<C>(3, N));
#pragma omp simd
      for (int64_t i = 0; i < N; ++i) {
        const C h = (in[i] - s.mean) * s.rstd;
        out[i] = (w ? h * w[i] : h) + (b ? b[i] : 0);
      }
      store_row<C>(a.y, z.y_dtype, r * N, N, out);
      if (!a.y_dot) continue;
      const C* dot = load_row<C>(a.x_dot, z.x_dtype, r * N, N, scratch<C>(4, N));
      C* out_dot = row_target<C>(a.y_dot, z.y_dtype, r * N, scratch<C>(3, N));
      xhat_dot_row(in, dot, s, N, out_dot);
      if (w) {
#pragma omp simd
        for (int64_t i = 0; i < N; ++i) out_dot[i] *= w[i];
      }
      store_row<C>(a.y_dot, z.y_dtype, r * N, N, out_dot);
    }
  });
}

template <class C>
void run_backward(const Backward& a, const Sizes& z) {
  const int64_t N = z.N;
  const C* w = a.w ? load_row<C>(a.w, z.w_dtype, 0, N, scratch<C>(0, N)) : nullptr;
  const bool params = a.w_bar || a.b_bar;
  Partials<C> sums = partials<C>(params ? 2 * N : 1);
  parallel_for(z.M, 32, [&](int64_t from, int64_t to, int part) {
    C *dw = sums.of(part), *db = dw + N, *h = scratch<C>(6, N), *g = scratch<C>(7, N);
    for (int64_t r = from; r < to; ++r) {
      const C* in = load_row<C>(a.x, z.x_dtype, r * N, N, scratch<C>(2, N));
      const C* bar = load_row<C>(a.y_bar, z.y_dtype, r * N, N, scratch<C>(4, N));
      const C m = static_cast<const C*>(a.mean)[r], s = static_cast<const C*>(a.rstd)[r];
      double g_sum = 0, gh_sum = 0;
#pragma omp simd reduction(+ : g_sum, gh_sum)
      for (int64_t i = 0; i < N; ++i) {
        h[i] = (in[i] - m) * s;
        g[i] = w ? bar[i] * w[i] : bar[i];
        g_sum += (double)g[i];
        gh_sum += (double)(g[i] * h[i]);
      }
      if (params) {
#pragma omp simd
        for (int64_t i = 0; i < N; ++i) {
          dw[i] += bar[i] * h[i];
          db[i] += bar[i];
        }
      }
      if (!a.x_bar) continue;
      const C g_mean = (C)(g_sum / (double)N), gh_mean = (C)(gh_sum / (double)N);
      C* out = row_target<C>(a.x_bar, z.x_dtype, r * N, scratch<C>(3, N));
#pragma omp simd
      for (int64_t i = 0; i < N; ++i) out[i] = s * (g[i] - g_mean - h[i] * gh_mean);
      store_row<C>(a.x_bar, z.x_dtype, r * N, N, out);
    }
  });
  if (a.w_bar) sums.add_to(static_cast<C*>(a.w_bar), 0, N);
  if (a.b_bar) sums.add_to(static_cast<C*>(a.b_bar), N, N);
}

}  // namespace

void forward(const Forward& a, const Sizes& z) {
  with_compute({z.x_dtype, z.w_dtype, z.y_dtype}, [&](auto zero) { run<decltype(zero)>(a, z); });
}

void backward(const Backward& a, const Sizes& z) {
  with_compute({z.x_dtype, z.w_dtype, z.y_dtype}, [&](auto zero) { run_backward<decltype(zero)>(a, z); });
}

}  // namespace rcm::layer_norm
