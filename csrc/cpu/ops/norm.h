// Shared by the norms: row statistics, and partial sums of parameter gradients.
#pragma once
#include <type_traits>

#include "cpu/runtime/common.h"

namespace rcm {

template <class C>
struct RowStats {
  C mean, rstd;
};

// Two passes over a row in cache: the mean, then the variance about it, both summed in f64.
template <class C>
RowStats<C> row_stats(const C* x, int64_t n, double eps) {
  double sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; ++i) sum += (double)x[i];
  const double mean = sum / (double)n;
  double var = 0;
#pragma omp simd reduction(+ : var)
  for (int64_t i = 0; i < n; ++i) {
    const double d = (double)x[i] - mean;
    var += d * d;
  }
  return {(C)mean, (C)(1 / std::sqrt(var / (double)n + eps))};
}

// Tangent of xhat = (x - mean) rstd along x_dot: rstd (x_dot - mean(x_dot) - xhat mean(xhat x_dot)).
template <class C>
void xhat_dot_row(const C* x, const C* x_dot, RowStats<C> s, int64_t n, C* out) {
  double a = 0, b = 0;
#pragma omp simd reduction(+ : a, b)
  for (int64_t i = 0; i < n; ++i) {
    a += (double)x_dot[i];
    b += (double)((x[i] - s.mean) * s.rstd * x_dot[i]);
  }
  const C ma = (C)(a / (double)n), mb = (C)(b / (double)n);
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) out[i] = s.rstd * (x_dot[i] - ma - (x[i] - s.mean) * s.rstd * mb);
}

// One buffer of partial sums per part of the rows. The buffers are added in order, so the result does not depend on
// scheduling.
constexpr int kPartialSlot = 12;

template <class C>
struct Partials {
  C* data;
  int64_t width, parts;
  C* of(int part) { return data + part * width; }
  void add_to(C* into, int64_t from, int64_t n) {
    for (int64_t p = 0; p < parts; ++p) {
      const C* v = data + p * width + from;
#pragma omp simd
      for (int64_t i = 0; i < n; ++i) into[i] += v[i];
    }
  }
};

template <class C>
Partials<C> partials(int64_t width) {
  const int64_t parts = threads();
  C* data = scratch<C>(kPartialSlot, width * parts);
  std::memset(data, 0, (size_t)(width * parts) * sizeof(C));
  return {data, width, parts};
}

}  // namespace rcm
