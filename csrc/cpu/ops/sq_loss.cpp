#include "cpu/runtime/common.h"
#include "shared/ops/sq_loss.h"

namespace rcm::sq_loss {
namespace {

constexpr int64_t kBlock = 4096;

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
void run(const Forward& a, const Sizes& z) {
  const double* weight = a.weight;
  parallel_for(z.B, 1, [&](int64_t from, int64_t to, int) {
    for (int64_t b = from; b < to; ++b) {
      double sum = 0, along = 0;
      if (weight[b] != 0) {
        residuals<C>(a.x, a.target, a.delta, b, z.N, z.dtype, [&](int64_t first, int64_t n, const double* r) {
#pragma omp simd reduction(+ : sum)
          for (int64_t j = 0; j < n; ++j) sum += r[j] * r[j];
          if (!a.x_dot) return;
          const C* d = load_row<C>(a.x_dot, z.dtype, first, n, scratch<C>(4, kBlock));
#pragma omp simd reduction(+ : along)
          for (int64_t j = 0; j < n; ++j) along += r[j] * (double)d[j];
        });
      }
      a.loss[b] = weight[b] * sum;
      if (a.loss_dot) a.loss_dot[b] = 2 * weight[b] * along;
    }
  });
}

}  // namespace

void forward(const Forward& a, const Sizes& z) {
  with_compute({z.dtype}, [&](auto zero) { run<decltype(zero)>(a, z); });
}

void backward(const Backward& a, const Sizes& z) {
  with_compute({z.dtype}, [&](auto zero) {
    using C = decltype(zero);
    parallel_for(z.B, 1, [&](int64_t from, int64_t to, int) {
      for (int64_t b = from; b < to; ++b) {
        const double factor = 2 * a.weight[b] * a.loss_bar[b];
        const bool dropped = a.weight[b] == 0;
        residuals<C>(a.x, a.target, a.delta, b, z.N, z.dtype, [&](int64_t first, int64_t n, const double* r) {
          C* out = row_target<C>(a.x_bar, z.dtype, first, scratch<C>(4, kBlock));
          for (int64_t j = 0; j < n; ++j) out[j] = dropped ? (C)0 : (C)(factor * r[j]);
          store_row<C>(a.x_bar, z.dtype, first, n, out);
        });
      }
    });
  });
}

}  // namespace rcm::sq_loss
