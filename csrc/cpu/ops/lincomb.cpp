#include "cpu/runtime/common.h"

using namespace rcm;

namespace {

struct Terms {
  const void* x[4];
  int32_t count;
};

void check(const Terms& t, const double* coef, const void* y, int64_t B, int64_t N) {
  if (t.count < 1 || t.count > 4) fail(RCM_E_ARG, "terms: want 1 to 4, got %d", t.count);
  need(coef, "coef");
  need(y, "y");
  size_at_least(B, 0, "B");
  size_at_least(N, 0, "N");
}

// y[b] = sum coef[i,b] x_i[b] (+ the same over a second set), in f64. Null terms are zero.
template <class C>
void combine(const Terms& t, const double* coef, const Terms* more, const double* more_coef, void* y, int64_t B, int64_t N, int32_t dtype) {
  constexpr int64_t kBlock = 2048;
  const int64_t per = N > 0 ? (N + kBlock - 1) / kBlock : 0;
  parallel_for(B * per, 8, [&](int64_t from, int64_t to, int) {
    double* sum = scratch<double>(0, kBlock);
    C* in = scratch<C>(1, kBlock);
    C* buffer = scratch<C>(2, kBlock);
    for (int64_t p = from; p < to; ++p) {
      const int64_t b = p / per, j0 = p % per * kBlock, n = N - j0 < kBlock ? N - j0 : kBlock;
      std::memset(sum, 0, (size_t)n * sizeof(double));
      auto add = [&](const Terms& set, const double* c) {
        for (int32_t i = 0; i < set.count; ++i) {
          const double a = c[i * B + b];
          if (set.x[i] == nullptr) continue;
          const C* v = load_row<C>(set.x[i], dtype, b * N + j0, n, in);
#pragma omp simd
          for (int64_t j = 0; j < n; ++j) sum[j] += a * (double)v[j];
        }
      };
      add(t, coef);
      if (more) add(*more, more_coef);
      C* out = row_target<C>(y, dtype, b * N + j0, buffer);
#pragma omp simd
      for (int64_t j = 0; j < n; ++j) out[j] = (C)sum[j];
      store_row<C>(y, dtype, b * N + j0, n, out);
    }
  });
}

}  // namespace

rcm_status rcm_lincomb_fwd(const void* x0, const void* x1, const void* x2, const void* x3, const double* coef, void* y, int64_t B, int64_t N,
                           int32_t terms, int32_t dtype) {
  return guard("lincomb_fwd", [&] {
    const Terms t{{x0, x1, x2, x3}, terms};
    check(t, coef, y, B, N);
    with_compute({dtype}, [&](auto zero) { combine<decltype(zero)>(t, coef, nullptr, nullptr, y, B, N, dtype); });
  });
}

rcm_status rcm_lincomb_jvp(const void* x0, const void* x1, const void* x2, const void* x3, const void* x0_dot, const void* x1_dot, const void* x2_dot,
                           const void* x3_dot, const double* coef, const double* coef_dot, void* y, void* y_dot, int64_t B, int64_t N, int32_t terms,
                           int32_t dtype) {
  return guard("lincomb_jvp", [&] {
    const Terms t{{x0, x1, x2, x3}, terms}, dots{{x0_dot, x1_dot, x2_dot, x3_dot}, terms};
    check(t, coef, y, B, N);
    need(y_dot, "y_dot");
    with_compute({dtype}, [&](auto zero) {
      using C = decltype(zero);
      combine<C>(t, coef, nullptr, nullptr, y, B, N, dtype);
      combine<C>(dots, coef, coef_dot ? &t : nullptr, coef_dot, y_dot, B, N, dtype);
    });
  });
}

rcm_status rcm_lincomb_vjp(const void* y_bar, const double* coef, void* x_bar, int64_t B, int64_t N, int32_t term, int32_t dtype) {
  return guard("lincomb_vjp", [&] {
    if (term < 0 || term > 3) fail(RCM_E_ARG, "term: want 0 to 3, got %d", term);
    const Terms t{{y_bar, nullptr, nullptr, nullptr}, 1};
    need(y_bar, "y_bar");
    check(t, coef, x_bar, B, N);
    with_compute({dtype}, [&](auto zero) { combine<decltype(zero)>(t, coef + term * B, nullptr, nullptr, x_bar, B, N, dtype); });
  });
}
