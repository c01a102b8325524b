#include "cpu/runtime/common.h"
#include "shared/ops/lincomb.h"

namespace rcm::lincomb {
namespace {

// y[b] = sum of coef[i,b] x_i[b], plus the same over a second set when `more` is given; summed in f64. Null terms are
// zero.
template <class C>
void combine(const Terms& t, const double* coef, const Terms* more, const double* more_coef, void* y, const Sizes& z) {
  const int64_t B = z.B, N = z.N;
  const int32_t dtype = z.dtype;
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

void forward(const Forward& a, const Sizes& z) {
  with_compute({z.dtype}, [&](auto zero) {
    using C = decltype(zero);
    combine<C>(a.x, a.coef, nullptr, nullptr, a.y, z);
    if (a.y_dot) combine<C>(a.x_dot, a.coef, a.coef_dot ? &a.x : nullptr, a.coef_dot, a.y_dot, z);
  });
}

void backward(const Backward& a, const Sizes& z) {
  const Terms y_bar{{a.y_bar, nullptr, nullptr, nullptr}, 1};
  with_compute({z.dtype}, [&](auto zero) { combine<decltype(zero)>(y_bar, a.coef, nullptr, nullptr, a.x_bar, z); });
}

}  // namespace rcm::lincomb
