#include "cpu/runtime/common.h"
#include "shared/ops/cross_entropy.h"

namespace rcm::cross_entropy {
namespace {

// fn(b, row, p, lse) for every sample: its logits as C, their softmax and log-sum-exp in f64.
template <class C, class Fn>
void rows(const void* x, const int32_t* label, const Sizes& z, Fn&& fn) {
  const int64_t B = z.B, N = z.N;
  const int32_t dtype = z.dtype;
  for (int64_t b = 0; b < B; ++b) {
    if (label[b] >= 0 && label[b] < N) continue;
    fail(RCM_E_ARG, "label %lld: want 0 to %lld, got %d", (long long)b, (long long)N - 1, label[b]);
  }
  parallel_for(B, 16, [&](int64_t from, int64_t to, int) {
    double* p = scratch<double>(0, N);
    for (int64_t b = from; b < to; ++b) {
      const C* v = load_row<C>(x, dtype, b * N, N, scratch<C>(1, N));
      double high = (double)v[0], sum = 0;
      for (int64_t i = 1; i < N; ++i) high = (double)v[i] > high ? (double)v[i] : high;
      for (int64_t i = 0; i < N; ++i) sum += p[i] = std::exp((double)v[i] - high);
      for (int64_t i = 0; i < N; ++i) p[i] /= sum;
      fn(b, v, p, high + std::log(sum));
    }
  });
}

}  // namespace

void forward(const Forward& a, const Sizes& z) {
  with_compute({z.dtype}, [&](auto zero) {
    using C = decltype(zero);
    rows<C>(a.x, a.label, z, [&](int64_t b, const C* x, const double* p, double lse) {
      a.loss[b] = lse - (double)x[a.label[b]];
      if (!a.loss_dot) return;
      const C* x_dot = load_row<C>(a.x_dot, z.dtype, b * z.N, z.N, scratch<C>(2, z.N));
      double sum = -(double)x_dot[a.label[b]];
      for (int64_t i = 0; i < z.N; ++i) sum += p[i] * (double)x_dot[i];
      a.loss_dot[b] = sum;
    });
  });
}

void backward(const Backward& a, const Sizes& z) {
  with_compute({z.dtype}, [&](auto zero) {
    using C = decltype(zero);
    rows<C>(a.x, a.label, z, [&](int64_t b, const C*, const double* p, double) {
      C* x_bar = row_target<C>(a.x_bar, z.dtype, b * z.N, scratch<C>(3, z.N));
      for (int64_t i = 0; i < z.N; ++i) x_bar[i] = (C)(a.loss_bar[b] * (p[i] - (i == a.label[b] ? 1 : 0)));
      store_row<C>(a.x_bar, z.dtype, b * z.N, z.N, x_bar);
    });
  });
}

}  // namespace rcm::cross_entropy
