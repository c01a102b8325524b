#include "norm.h"

using namespace rcm;

namespace {

template <class C>
void run(const void* x, const void* w, const void* b, const void* x_dot, void* y, void* y_dot, void* mean, void* rstd, int64_t M, int64_t N, double eps,
         int32_t x_dtype, int32_t w_dtype, int32_t y_dtype) {
  const C* W = w ? load_row<C>(w, w_dtype, 0, N, scratch<C>(0, N)) : nullptr;
  const C* b_ = b ? load_row<C>(b, w_dtype, 0, N, scratch<C>(1, N)) : nullptr;
  parallel_for(M, 32, [&](int64_t from, int64_t to, int) {
    for (int64_t r = from; r < to; ++r) {
      const C* in = load_row<C>(x, x_dtype, r * N, N, scratch<C>(2, N));
      const RowStats<C> s = row_stats(in, N, eps);
      static_cast<C*>(mean)[r] = s.mean;
      static_cast<C*>(rstd)[r] = s.rstd;
      C* out = row_target<C>(y, y_dtype, r * N, scratch<C>(3, N));
#pragma omp simd
      for (int64_t i = 0; i < N; ++i) {
        const C h = (in[i] - s.mean) * s.rstd;
        out[i] = (W ? h * W[i] : h) + (b_ ? b_[i] : 0);
      }
      store_row<C>(y, y_dtype, r * N, N, out);
      if (!y_dot) continue;
      const C* dot = load_row<C>(x_dot, x_dtype, r * N, N, scratch<C>(4, N));
      C* out_dot = row_target<C>(y_dot, y_dtype, r * N, scratch<C>(3, N));
      xhat_dot_row(in, dot, s, N, out_dot);
      if (W) {
#pragma omp simd
        for (int64_t i = 0; i < N; ++i) out_dot[i] *= W[i];
      }
      store_row<C>(y_dot, y_dtype, r * N, N, out_dot);
    }
  });
}

void forward(const void* x, const void* w, const void* b, const void* x_dot, void* y, void* y_dot, void* mean, void* rstd, int64_t M, int64_t N, double eps,
             int32_t x_dtype, int32_t w_dtype, int32_t y_dtype) {
  need(x, "x");
  need(y, "y");
  need(mean, "mean");
  need(rstd, "rstd");
  size_at_least(M, 0, "M");
  size_at_least(N, 1, "N");
  const int32_t wd = w || b ? w_dtype : x_dtype;
  with_compute({x_dtype, wd, y_dtype}, [&](auto zero) { run<decltype(zero)>(x, w, b, x_dot, y, y_dot, mean, rstd, M, N, eps, x_dtype, wd, y_dtype); });
}

template <class C>
void backward(const void* x, const void* w, const void* mean, const void* rstd, const void* y_bar, void* x_bar, void* w_bar, void* b_bar, int64_t M,
              int64_t N, int32_t x_dtype, int32_t w_dtype, int32_t y_dtype) {
  const C* W = w ? load_row<C>(w, w_dtype, 0, N, scratch<C>(0, N)) : nullptr;
  const bool params = w_bar || b_bar;
  Partials<C> sums = partials<C>(params ? 2 * N : 1);
  parallel_for(M, 32, [&](int64_t from, int64_t to, int part) {
    C *dw = sums.of(part), *db = dw + N, *h = scratch<C>(6, N), *g = scratch<C>(7, N);
    for (int64_t r = from; r < to; ++r) {
      const C* in = load_row<C>(x, x_dtype, r * N, N, scratch<C>(2, N));
      const C* bar = load_row<C>(y_bar, y_dtype, r * N, N, scratch<C>(4, N));
      const C m = static_cast<const C*>(mean)[r], s = static_cast<const C*>(rstd)[r];
      double a = 0, c = 0;
#pragma omp simd reduction(+ : a, c)
      for (int64_t i = 0; i < N; ++i) {
        h[i] = (in[i] - m) * s;
        g[i] = W ? bar[i] * W[i] : bar[i];
        a += (double)g[i];
        c += (double)(g[i] * h[i]);
      }
      if (params) {
#pragma omp simd
        for (int64_t i = 0; i < N; ++i) {
          dw[i] += bar[i] * h[i];
          db[i] += bar[i];
        }
      }
      if (!x_bar) continue;
      const C ma = (C)(a / (double)N), mc = (C)(c / (double)N);
      C* out = row_target<C>(x_bar, x_dtype, r * N, scratch<C>(3, N));
#pragma omp simd
      for (int64_t i = 0; i < N; ++i) out[i] = s * (g[i] - ma - h[i] * mc);
      store_row<C>(x_bar, x_dtype, r * N, N, out);
    }
  });
  if (w_bar) sums.add_to(static_cast<C*>(w_bar), 0, N);
  if (b_bar) sums.add_to(static_cast<C*>(b_bar), N, N);
}

}  // namespace

rcm_status rcm_layer_norm_fwd(const void* x, const void* w, const void* b, void* y, void* mean, void* rstd, int64_t M, int64_t N, double eps, int32_t x_dtype,
                              int32_t w_dtype, int32_t y_dtype) {
  return guard("layer_norm_fwd", [&] { forward(x, w, b, nullptr, y, nullptr, mean, rstd, M, N, eps, x_dtype, w_dtype, y_dtype); });
}

rcm_status rcm_layer_norm_jvp(const void* x, const void* w, const void* b, const void* x_dot, void* y, void* y_dot, void* mean, void* rstd, int64_t M,
                              int64_t N, double eps, int32_t x_dtype, int32_t w_dtype, int32_t y_dtype) {
  return guard("layer_norm_jvp", [&] {
    need(x_dot, "x_dot");
    need(y_dot, "y_dot");
    forward(x, w, b, x_dot, y, y_dot, mean, rstd, M, N, eps, x_dtype, w_dtype, y_dtype);
  });
}

rcm_status rcm_layer_norm_vjp(const void* x, const void* w, const void* mean, const void* rstd, const void* y_bar, void* x_bar, void* w_bar, void* b_bar,
                              int64_t M, int64_t N, int32_t x_dtype, int32_t w_dtype, int32_t y_dtype) {
  return guard("layer_norm_vjp", [&] {
    need(x, "x");
    need(mean, "mean");
    need(rstd, "rstd");
    need(y_bar, "y_bar");
    size_at_least(M, 0, "M");
    size_at_least(N, 1, "N");
    const int32_t wd = w ? w_dtype : x_dtype;
    with_compute({x_dtype, wd, y_dtype},
                 [&](auto zero) { backward<decltype(zero)>(x, w, mean, rstd, y_bar, x_bar, w_bar, b_bar, M, N, x_dtype, wd, y_dtype); });
  });
}
