// Nondifferentiable element-wise helpers: cast, axpy, fill, sample_reduce.
#include "cpu/runtime/common.h"

using namespace rcm;

namespace {

constexpr int64_t kBlock = 4096, kGrain = 1 << 15;

// Runs fn(first, n) over cache-sized blocks on all threads.
template <class Fn>
void blocks(int64_t n, Fn&& fn) {
  parallel_for(n, kGrain, [&](int64_t from, int64_t to, int) {
    for (int64_t i = from; i < to; i += kBlock) fn(i, to - i < kBlock ? to - i : kBlock);
  });
}

void float_dtype(int32_t dtype, const char* name) {
  if (dtype < RCM_F32 || dtype > RCM_F64) fail(RCM_E_DTYPE, "%s: want f32, bf16, f16 or f64, got code %d", name, dtype);
}

}  // namespace

rcm_status rcm_cast(const void* src, void* dst, int64_t n, int32_t src_dtype, int32_t dst_dtype) {
  return guard("cast", [&] {
    need(src, "src");
    need(dst, "dst");
    size_at_least(n, 0, "n");
    float_dtype(src_dtype, "src_dtype");
    float_dtype(dst_dtype, "dst_dtype");
    if (src_dtype == RCM_F64 || dst_dtype == RCM_F64) {
      blocks(n, [&](int64_t i, int64_t m) { store_row<double>(dst, dst_dtype, i, m, load_row<double>(src, src_dtype, i, m, scratch<double>(0, kBlock))); });
    } else {
      blocks(n, [&](int64_t i, int64_t m) { store_row<float>(dst, dst_dtype, i, m, load_row<float>(src, src_dtype, i, m, scratch<float>(0, kBlock))); });
    }
  });
}

namespace {
template <class C>
void axpy(const void* x, void* y, int64_t n, C a, int32_t x_dtype, int32_t y_dtype) {
  blocks(n, [&](int64_t i, int64_t m) {
    const C* from = load_row<C>(x, x_dtype, i, m, scratch<C>(0, kBlock));
    const C* old = load_row<C>(y, y_dtype, i, m, scratch<C>(1, kBlock));
    C* to = row_target<C>(y, y_dtype, i, scratch<C>(1, kBlock));
#pragma omp simd
    for (int64_t j = 0; j < m; ++j) to[j] = old[j] + a * from[j];
    store_row<C>(y, y_dtype, i, m, to);
  });
}
}  // namespace

rcm_status rcm_axpy(const void* x, void* y, int64_t n, double a, int32_t x_dtype, int32_t y_dtype) {
  return guard("axpy", [&] {
    need(x, "x");
    need(y, "y");
    size_at_least(n, 0, "n");
    float_dtype(x_dtype, "x_dtype");
    float_dtype(y_dtype, "y_dtype");
    if (x_dtype == RCM_F64 || y_dtype == RCM_F64) return axpy<double>(x, y, n, a, x_dtype, y_dtype);
    axpy<float>(x, y, n, (float)a, x_dtype, y_dtype);
  });
}

rcm_status rcm_fill(void* out, int64_t n, double value, int32_t dtype) {
  return guard("fill", [&] {
    need(out, "out");
    size_at_least(n, 0, "n");
    with_dtype(dtype, "dtype", [&](auto zero) {
      using T = decltype(zero);
      const T v = from_float<T>(value);
      blocks(n, [&](int64_t i, int64_t m) {
        for (int64_t j = 0; j < m; ++j) static_cast<T*>(out)[i + j] = v;
      });
    });
  });
}

namespace {

// One sample by blocks; every element enters in f64.
template <class C>
double reduce(const void* x, int32_t dtype, int64_t first, int64_t n, int32_t kind) {
  double total = 0;
  for (int64_t i = 0; i < n; i += kBlock) {
    const int64_t m = n - i < kBlock ? n - i : kBlock;
    const C* v = load_row<C>(x, dtype, first + i, m, scratch<C>(0, kBlock));
    double sum = 0;
    switch (kind) {
      case 0:
#pragma omp simd reduction(+ : sum)
        for (int64_t j = 0; j < m; ++j) sum += (double)v[j];
        break;
      case 1:
#pragma omp simd reduction(+ : sum)
        for (int64_t j = 0; j < m; ++j) sum += std::fabs((double)v[j]);
        break;
      case 2:
#pragma omp simd reduction(+ : sum)
        for (int64_t j = 0; j < m; ++j) sum += (double)v[j] * (double)v[j];
        break;
      case 3:
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

rcm_status rcm_sample_reduce(const void* x, double* out, int64_t B, int64_t N, int32_t kind, int32_t dtype) {
  return guard("sample_reduce", [&] {
    need(x, "x");
    need(out, "out");
    size_at_least(B, 0, "B");
    size_at_least(N, 0, "N");
    float_dtype(dtype, "dtype");
    if (kind < 0 || kind > 4) fail(RCM_E_ARG, "kind: want 0 to 4, got %d", kind);
    auto one = [&](int64_t first, int64_t n) { return dtype == RCM_F64 ? reduce<double>(x, dtype, first, n, kind) : reduce<float>(x, dtype, first, n, kind); };
    if (B >= threads() || N < kGrain) {
      parallel_for(B, N > 0 ? 1 + kGrain / N : 1, [&](int64_t from, int64_t to, int) {
        for (int64_t b = from; b < to; ++b) out[b] = one(b * N, N);
      });
      return;
    }
    // Few long samples: fixed pieces, so that the sum does not depend on the number of threads.
    const int64_t piece = 1 << 18, pieces = (N + piece - 1) / piece;
    double* part = scratch<double>(3, pieces);
    for (int64_t b = 0; b < B; ++b) {
      parallel_for(pieces, 1, [&](int64_t from, int64_t to, int) {
        for (int64_t p = from; p < to; ++p) part[p] = one(b * N + p * piece, N - p * piece < piece ? N - p * piece : piece);
      });
      double total = 0;
      for (int64_t p = 0; p < pieces; ++p) total = kind == 3 ? (part[p] > total || part[p] != part[p] ? part[p] : total) : total + part[p];
      out[b] = total;
    }
  });
}
