#include "linear.h"

namespace rcm {

template <class C>
void matmul_vjp(const void* x, const void* w, const void* y_bar, void* x_bar, void* w_bar, void* b_bar, int64_t M, int64_t N, int64_t K,
                int32_t x_dtype, int32_t w_dtype, int32_t y_dtype) {
  // Converted copies of whole operands when storage is narrower; f32 and f64 are used in place.
  const C* dy = static_cast<const C*>(y_bar);
  if (y_dtype != native_dtype<C>()) {
    C* copy = scratch<C>(3, M * N);
    parallel_for(M * N, 1 << 14, [&](int64_t from, int64_t to, int) { load_row<C>(y_bar, y_dtype, from, to - from, copy + from); });
    dy = copy;
  }
  if (x_bar) {
    const C* W = weights<C>(w, w_dtype, N * K);
    parallel_for(M, 16, [&](int64_t from, int64_t to, int) {
      for (int64_t r = from; r < to; r += kChunkRows) {
        const int64_t rows = to - r < kChunkRows ? to - r : kChunkRows;
        C* out = row_target<C>(x_bar, x_dtype, r * K, x_dtype == native_dtype<C>() ? nullptr : scratch<C>(1, kChunkRows * K));
        gemm(false, false, rows, K, N, dy + r * N, N, W, K, (C)0, out, K);
        store_row<C>(x_bar, x_dtype, r * K, rows * K, out);
      }
    });
  }
  if (w_bar) {
    const C* X = static_cast<const C*>(x);
    if (x_dtype != native_dtype<C>()) {
      C* copy = scratch<C>(4, M * K);
      parallel_for(M * K, 1 << 14, [&](int64_t from, int64_t to, int) { load_row<C>(x, x_dtype, from, to - from, copy + from); });
      X = copy;
    }
    // Each thread owns rows of w_bar, so no partial sums are needed and the result does not depend on timing.
    C* dw = static_cast<C*>(w_bar);
    parallel_for(N, 8, [&](int64_t from, int64_t to, int) { gemm(true, false, to - from, K, M, dy + from, N, X, K, (C)1, dw + from * K, K); });
  }
  if (b_bar) {
    C* db = static_cast<C*>(b_bar);
    parallel_for(N, 32, [&](int64_t from, int64_t to, int) {
      constexpr int64_t kWide = 256;
      for (int64_t j0 = from; j0 < to; j0 += kWide) {
        const int64_t wide = to - j0 < kWide ? to - j0 : kWide;
        C sum[kWide] = {};
        // Pairs of levels keep the rounding error of long columns small.
        for (int64_t r0 = 0; r0 < M; r0 += 512) {
          C part[kWide] = {};
          const int64_t end = r0 + 512 < M ? r0 + 512 : M;
          for (int64_t r = r0; r < end; ++r) {
            const C* row = dy + r * N + j0;
#pragma omp simd
            for (int64_t j = 0; j < wide; ++j) part[j] += row[j];
          }
          for (int64_t j = 0; j < wide; ++j) sum[j] += part[j];
        }
        for (int64_t j = 0; j < wide; ++j) db[j0 + j] += sum[j];
      }
    });
  }
}
template void matmul_vjp<float>(const void*, const void*, const void*, void*, void*, void*, int64_t, int64_t, int64_t, int32_t, int32_t, int32_t);
template void matmul_vjp<double>(const void*, const void*, const void*, void*, void*, void*, int64_t, int64_t, int64_t, int32_t, int32_t, int32_t);

namespace {

void check(const void* x, const void* w, int64_t M, int64_t N, int64_t K) {
  size_at_least(M, 0, "M");
  size_at_least(N, 0, "N");
  size_at_least(K, 0, "K");
  if (N > INT32_MAX || K > INT32_MAX) fail(RCM_E_SHAPE, "N and K: want below 2^31");
  need(x, "x");
  need(w, "w");
}

template <class C>
void forward(const void* x, const C* w, const C* bias, void* y, int64_t M, int64_t N, int64_t K, int32_t x_dtype, int32_t y_dtype) {
  const bool direct = y_dtype == native_dtype<C>();
  matmul_rows<C>(
      x, x_dtype, w, bias, M, N, K, [&](int64_t r) { return direct ? static_cast<C*>(y) + r * N : nullptr; },
      [&](int64_t r, int64_t rows, const C* h) { store_row<C>(y, y_dtype, r * N, rows * N, h); });
}

template <class C>
const C* bias_row(const void* b, int32_t dtype, int64_t n) {
  return b ? load_row<C>(b, dtype, 0, n, scratch<C>(5, n)) : nullptr;
}

}  // namespace
}  // namespace rcm

using namespace rcm;

rcm_status rcm_linear_fwd(const void* x, const void* w, const void* b, void* y, int64_t M, int64_t N, int64_t K, int32_t x_dtype, int32_t w_dtype,
                          int32_t y_dtype) {
  return guard("linear_fwd", [&] {
    check(x, w, M, N, K);
    need(y, "y");
    with_compute({x_dtype, w_dtype, y_dtype}, [&](auto zero) {
      using C = decltype(zero);
      forward<C>(x, weights<C>(w, w_dtype, N * K), bias_row<C>(b, w_dtype, N), y, M, N, K, x_dtype, y_dtype);
    });
  });
}

rcm_status rcm_linear_jvp(const void* x, const void* w, const void* b, const void* x_dot, void* y, void* y_dot, int64_t M, int64_t N, int64_t K,
                          int32_t x_dtype, int32_t w_dtype, int32_t y_dtype) {
  return guard("linear_jvp", [&] {
    check(x, w, M, N, K);
    need(x_dot, "x_dot");
    need(y, "y");
    need(y_dot, "y_dot");
    with_compute({x_dtype, w_dtype, y_dtype}, [&](auto zero) {
      using C = decltype(zero);
      const C* W = weights<C>(w, w_dtype, N * K);
      forward<C>(x, W, bias_row<C>(b, w_dtype, N), y, M, N, K, x_dtype, y_dtype);
      forward<C>(x_dot, W, nullptr, y_dot, M, N, K, x_dtype, y_dtype);
    });
  });
}

rcm_status rcm_linear_vjp(const void* x, const void* w, const void* y_bar, void* x_bar, void* w_bar, void* b_bar, int64_t M, int64_t N, int64_t K,
                          int32_t x_dtype, int32_t w_dtype, int32_t y_dtype) {
  return guard("linear_vjp", [&] {
    check(w_bar ? x : w, w, M, N, K);
    need(y_bar, "y_bar");
    with_compute({x_dtype, w_dtype, y_dtype}, [&](auto zero) { matmul_vjp<decltype(zero)>(x, w, y_bar, x_bar, w_bar, b_bar, M, N, K, x_dtype, w_dtype, y_dtype); });
  });
}
