#include "cpu/runtime/common.h"

using namespace rcm;

namespace {

constexpr int64_t kBlock = 4096;

void check(const void* x, const double* weight, int64_t B, int64_t N) {
  need(x, "x");
  need(weight, "weight");
  size_at_least(B, 0, "B");
  size_at_least(N, 0, "N");
}

// fn(first, n, residual) over the blocks of sample b; the residual is formed in f64.
template <class C, class Fn>
void residuals(const void* x, const void* target, const void* delta, int64_t b, int64_t N, int32_t dtype, Fn&& fn) {
  double* r = scratch<double>(0, kBlock);
  for (int64_t i = 0; i < N; i += kBlock) {
    const int64_t n = N - i < kBlock ? N - i : kBlock, first = b * N + i;
    const C* v = load_row<C>(x, dtype, first, n, scratch<C>(1, kBlock));
    const C* t = target ? load_row<C>(target, dtype, first, n, scratch<C>(2, kBlock)) : nullptr;
    const C* d = delta ? load_row<C>(delta, dtype, first, n, scratch<C>(3, kBlock)) : nullptr;
#pragma omp simd
    for (int64_t j = 0; j < n; ++j) r[j] = ((double)v[j] - (t ? (double)t[j] : 0.0)) - (d ? (double)d[j] : 0.0);
    fn(first, n, r);
  }
}

template <class C>
void run(const void* x, const void* target, const void* delta, const double* weight, const void* x_dot, double* loss, double* loss_dot, int64_t B, int64_t N,
         int32_t dtype) {
  parallel_for(B, 1, [&](int64_t from, int64_t to, int) {
    for (int64_t b = from; b < to; ++b) {
      double sum = 0, along = 0;
      if (weight[b] != 0) {
        residuals<C>(x, target, delta, b, N, dtype, [&](int64_t first, int64_t n, const double* r) {
#pragma omp simd reduction(+ : sum)
          for (int64_t j = 0; j < n; ++j) sum += r[j] * r[j];
          if (!x_dot) return;
          const C* d = load_row<C>(x_dot, dtype, first, n, scratch<C>(4, kBlock));
#pragma omp simd reduction(+ : along)
          for (int64_t j = 0; j < n; ++j) along += r[j] * (double)d[j];
        });
      }
      loss[b] = weight[b] * sum;
      if (loss_dot) loss_dot[b] = 2 * weight[b] * along;
    }
  });
}

}  // namespace

rcm_status rcm_sq_loss_fwd(const void* x, const void* target, const void* delta, const double* weight, double* loss, int64_t B, int64_t N, int32_t dtype) {
  return guard("sq_loss_fwd", [&] {
    check(x, weight, B, N);
    need(loss, "loss");
    with_compute({dtype}, [&](auto zero) { run<decltype(zero)>(x, target, delta, weight, nullptr, loss, nullptr, B, N, dtype); });
  });
}

rcm_status rcm_sq_loss_jvp(const void* x, const void* target, const void* delta, const double* weight, const void* x_dot, double* loss, double* loss_dot,
                           int64_t B, int64_t N, int32_t dtype) {
  return guard("sq_loss_jvp", [&] {
    check(x, weight, B, N);
    need(x_dot, "x_dot");
    need(loss, "loss");
    need(loss_dot, "loss_dot");
    with_compute({dtype}, [&](auto zero) { run<decltype(zero)>(x, target, delta, weight, x_dot, loss, loss_dot, B, N, dtype); });
  });
}

rcm_status rcm_sq_loss_vjp(const void* x, const void* target, const void* delta, const double* weight, const double* loss_bar, void* x_bar, int64_t B,
                           int64_t N, int32_t dtype) {
  return guard("sq_loss_vjp", [&] {
    check(x, weight, B, N);
    need(loss_bar, "loss_bar");
    need(x_bar, "x_bar");
    with_compute({dtype}, [&](auto zero) {
      using C = decltype(zero);
      parallel_for(B, 1, [&](int64_t from, int64_t to, int) {
        for (int64_t b = from; b < to; ++b) {
          const double a = 2 * weight[b] * loss_bar[b];
          const bool dropped = weight[b] == 0;
          residuals<C>(x, target, delta, b, N, dtype, [&](int64_t first, int64_t n, const double* r) {
            C* out = row_target<C>(x_bar, dtype, first, scratch<C>(4, kBlock));
            for (int64_t j = 0; j < n; ++j) out[j] = dropped ? (C)0 : (C)(a * r[j]);
            store_row<C>(x_bar, dtype, first, n, out);
          });
        }
      });
    });
  });
}
