// Nondifferentiable element-wise helpers: cast, axpy, fill, sample_reduce.
#include "shared/ops/elementwise.h"

#include "cpu/runtime/common.h"

namespace rcm::elementwise {
namespace {

constexpr int64_t kBlock = 4096, kGrain = 1 << 15;

// Runs fn(first, n) over cache-sized blocks on all threads.
template <class Fn>
void blocks(int64_t n, Fn&& fn) {
  parallel_for(n, kGrain, [&](int64_t from, int64_t to, int) {
    for (int64_t i = from; i < to; i += kBlock) fn(i, to - i < kBlock ? to - i : kBlock);
  });
}

template <class C>
void convert(const Cast& a) {
  blocks(a.n, [&](int64_t i, int64_t m) {
    store_row<C>(a.dst, a.dst_dtype, i, m, load_row<C>(a.src, a.src_dtype, i, m, scratch<C>(0, kBlock)));
  });
}

template <class C>
void accumulate(const Axpy& a) {
  const C factor = (C)a.a;
  blocks(a.n, [&](int64_t i, int64_t m) {
    const C* from = load_row<C>(a.x, a.x_dtype, i, m, scratch<C>(0, kBlock));
    const C* old = load_row<C>(a.y, a.y_dtype, i, m, scratch<C>(1, kBlock));
    C* to = row_target<C>(a.y, a.y_dtype, i, scratch<C>(1, kBlock));
#pragma omp simd
    for (int64_t j = 0; j < m; ++j) to[j] = old[j] + factor * from[j];
    store_row<C>(a.y, a.y_dtype, i, m, to);
  });
}

// Reduces n elements from `first` on, by blocks, in f64.
template <class C>
double reduce(const void* x, int32_t dtype, int64_t first, int64_t n, int32_t kind) {
  double total = 0;
  for (int64_t i = 0; i < n; i += kBlock) {
    const int64_t m = n - i < kBlock ? n - i : kBlock;
    const C* v = load_row<C>(x, dtype, first + i, m, scratch<C>(0, kBlock));
    double sum = 0;
    switch (kind) {
      case kSum:
#pragma omp simd reduction(+ : sum)
        for (int64_t j = 0; j < m; ++j) sum += (double)v[j];
        break;
      case kAbsolute:
#pragma omp simd reduction(+ : sum)
        for (int64_t j = 0; j < m; ++j) sum += std::fabs((double)v[j]);
        break;
      case kSquares:
#pragma omp simd reduction(+ : sum)
        for (int64_t j = 0; j < m; ++j) sum += (double)v[j] * (double)v[j];
        break;
      case kMax:
        sum = total;
        for (int64_t j = 0; j < m; ++j) {
          const double a = std::fabs((double)v[j]);
          sum = a > sum || a != a ? a : sum;
        }
        total = sum;
        sum = 0;
        break;
      default:
#pragma omp simd reduction(+ : sum)
        for (int64_t j = 0; j < m; ++j) sum += (v[j] - v[j]) == 0 ? 0.0 : 1.0;
    }
    total += sum;
  }
  return total;
}

}  // namespace

void cast(const Cast& a) {
  if (a.src_dtype == RCM_F64 || a.dst_dtype == RCM_F64) convert<double>(a);
  else convert<float>(a);
}

void axpy(const Axpy& a) {
  if (a.x_dtype == RCM_F64 || a.y_dtype == RCM_F64) accumulate<double>(a);
  else accumulate<float>(a);
}

void fill(void* out, int64_t n, double value, int32_t dtype) {
  with_dtype(dtype, "dtype", [&](auto zero) {
    using T = decltype(zero);
    const T v = from_float<T>(value);
    blocks(n, [&](int64_t i, int64_t m) {
      for (int64_t j = 0; j < m; ++j) static_cast<T*>(out)[i + j] = v;
    });
  });
}

void sample_reduce(const Reduce& a) {
  const auto part_of = [&a](int64_t first, int64_t n) {
    return a.dtype == RCM_F64 ? reduce<double>(a.x, a.dtype, first, n, a.kind)
                              : reduce<float>(a.x, a.dtype, first, n, a.kind);
  };
  if (a.B >= threads() || a.N < kGrain) {
    parallel_for(a.B, a.N > 0 ? 1 + kGrain / a.N : 1, [&](int64_t from, int64_t to, int) {
      for (int64_t b = from; b < to; ++b) a.out[b] = part_of(b * a.N, a.N);
    });
    return;
  }
  // Few long samples: pieces of a fixed size, so that the sum does not depend on the number of threads.
  const int64_t piece = 1 << 18, pieces = (a.N + piece - 1) / piece;
  double* part = scratch<double>(3, pieces);
  for (int64_t b = 0; b < a.B; ++b) {
    parallel_for(pieces, 1, [&](int64_t from, int64_t to, int) {
      for (int64_t p = from; p < to; ++p) {
        part[p] = part_of(b * a.N + p * piece, a.N - p * piece < piece ? a.N - p * piece : piece);
      }
    });
    double total = 0;
    for (int64_t p = 0; p < pieces; ++p) {
      if (a.kind != kMax) total += part[p];
      else if (part[p] > total || part[p] != part[p]) total = part[p];
    }
    a.out[b] = total;
  }
}

}  // namespace rcm::elementwise
