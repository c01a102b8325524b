#include "cpu/runtime/common.h"

using namespace rcm;

namespace {

// fn(b, row, p, lse): row of logits as C, its softmax in f64, and the log of the sum.
template <class C, class Fn>
void rows(const void* x, const int32_t* label, int64_t B, int64_t N, int32_t dtype, Fn&& fn) {
  need(x, "x");
  need(label, "label");
  size_at_least(B, 0, "B");
  size_at_least(N, 1, "N");
  for (int64_t b = 0; b < B; ++b) {
    if (label[b] < 0 || label[b] >= N) fail(RCM_E_ARG, "label %lld: want 0 to %lld, got %d", (long long)b, (long long)N - 1, label[b]);
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

rcm_status rcm_cross_entropy_fwd(const void* x, const int32_t* label, double* loss, int64_t B, int64_t N, int32_t dtype) {
  return guard("cross_entropy_fwd", [&] {
    need(loss, "loss");
    with_compute({dtype}, [&](auto zero) {
      using C = decltype(zero);
      rows<C>(x, label, B, N, dtype, [&](int64_t b, const C* v, const double*, double lse) { loss[b] = lse - (double)v[label[b]]; });
    });
  });
}

rcm_status rcm_cross_entropy_jvp(const void* x, const int32_t* label, const void* x_dot, double* loss, double* loss_dot, int64_t B, int64_t N,
                                 int32_t dtype) {
  return guard("cross_entropy_jvp", [&] {
    need(x_dot, "x_dot");
    need(loss, "loss");
    need(loss_dot, "loss_dot");
    with_compute({dtype}, [&](auto zero) {
      using C = decltype(zero);
      rows<C>(x, label, B, N, dtype, [&](int64_t b, const C* v, const double* p, double lse) {
        loss[b] = lse - (double)v[label[b]];
        const C* d = load_row<C>(x_dot, dtype, b * N, N, scratch<C>(2, N));
        double sum = -(double)d[label[b]];
        for (int64_t i = 0; i < N; ++i) sum += p[i] * (double)d[i];
        loss_dot[b] = sum;
      });
    });
  });
}

rcm_status rcm_cross_entropy_vjp(const void* x, const int32_t* label, const double* loss_bar, void* x_bar, int64_t B, int64_t N, int32_t dtype) {
  return guard("cross_entropy_vjp", [&] {
    need(loss_bar, "loss_bar");
    need(x_bar, "x_bar");
    with_compute({dtype}, [&](auto zero) {
      using C = decltype(zero);
      rows<C>(x, label, B, N, dtype, [&](int64_t b, const C*, const double* p, double) {
        C* out = row_target<C>(x_bar, dtype, b * N, scratch<C>(3, N));
        for (int64_t i = 0; i < N; ++i) out[i] = (C)(loss_bar[b] * (p[i] - (i == label[b] ? 1 : 0)));
        store_row<C>(x_bar, dtype, b * N, N, out);
      });
    });
  });
}
