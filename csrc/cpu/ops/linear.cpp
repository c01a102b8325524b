#include "linear.h"

namespace rcm::linear {
namespace {

template <class C>
void run_backward(const Backward& a, const Sizes& z) {
  // Operands stored narrower than C are converted whole; f32 and f64 are used in place.
  const C* dy = static_cast<const C*>(a.y_bar);
  if (z.y_dtype != native_dtype<C>()) {
    C* copy = scratch<C>(3, z.M * z.N);
    parallel_for(z.M * z.N, 1 << 14,
                 [&](int64_t from, int64_t to, int) { load_row<C>(a.y_bar, z.y_dtype, from, to - from, copy + from); });
    dy = copy;
  }
  if (a.x_bar) {
    const C* W = weights<C>(a.w, z.w_dtype, z.N * z.K);
    parallel_for(z.M, 16, [&](int64_t from, int64_t to, int) {
      for (int64_t r = from; r < to; r += kChunkRows) {
        const int64_t rows = to - r < kChunkRows ? to - r : kChunkRows;
        C* out = row_target<C>(a.x_bar, z.x_dtype, r * z.K,
                               z.x_dtype == native_dtype<C>() ? nullptr : scratch<C>(1, kChunkRows * z.K));
        gemm(false, false, rows, z.K, z.N, dy + r * z.N, z.N, W, z.K, (C)0, out, z.K);
        store_row<C>(a.x_bar, z.x_dtype, r * z.K, rows * z.K, out);
      }
    });
  }
  if (a.w_bar) {
    const C* X = static_cast<const C*>(a.x);
    if (z.x_dtype != native_dtype<C>()) {
      C* copy = scratch<C>(4, z.M * z.K);
      parallel_for(z.M * z.K, 1 << 14,
                   [&](int64_t from, int64_t to, int) { load_row<C>(a.x, z.x_dtype, from, to - from, copy + from); });
      X = copy;
    }
    // Each thread owns rows of w_bar, so no partial sums are needed and the result does not depend on timing.
    C* dw = static_cast<C*>(a.w_bar);
    parallel_for(z.N, 8, [&](int64_t from, int64_t to, int) {
      gemm(true, false, to - from, z.K, z.M, dy + from, z.N, X, z.K, (C)1, dw + from * z.K, z.K);
    });
  }
  if (a.b_bar) {
    C* db = static_cast<C*>(a.b_bar);
    parallel_for(z.N, 32, [&](int64_t from, int64_t to, int) {
      constexpr int64_t kWide = 256;
      for (int64_t j0 = from; j0 < to; j0 += kWide) {
        const int64_t wide = to - j0 < kWide ? to - j0 : kWide;
        C sum[kWide] = {};
        // Two levels of partial sums keep the rounding error of long columns small.
        for (int64_t r0 = 0; r0 < z.M; r0 += 512) {
          C part[kWide] = {};
          const int64_t end = r0 + 512 < z.M ? r0 + 512 : z.M;
          for (int64_t r = r0; r < end; ++r) {
            const C* row = dy + r * z.N + j0;
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

// y = x w^T + bias.
template <class C>
void product(const void* x, const C* w, const C* bias, void* y, const Sizes& z) {
  const bool direct = z.y_dtype == native_dtype<C>();
  matmul_rows<C>(
      x, z.x_dtype, w, bias, z.M, z.N, z.K, [&](int64_t r) { return direct ? static_cast<C*>(y) + r * z.N : nullptr; },
      [&](int64_t r, int64_t rows, const C* h) { store_row<C>(y, z.y_dtype, r * z.N, rows * z.N, h); });
}

}  // namespace

void forward(const Forward& a, const Sizes& z) {
  with_compute({z.x_dtype, z.w_dtype, z.y_dtype}, [&](auto zero) {
    using C = decltype(zero);
    const C* w = weights<C>(a.w, z.w_dtype, z.N * z.K);
    const C* bias = a.b ? load_row<C>(a.b, z.w_dtype, 0, z.N, scratch<C>(5, z.N)) : nullptr;
    product<C>(a.x, w, bias, a.y, z);
    if (a.y_dot) product<C>(a.x_dot, w, nullptr, a.y_dot, z);
  });
}

void backward(const Backward& a, const Sizes& z) {
  with_compute({z.x_dtype, z.w_dtype, z.y_dtype}, [&](auto zero) { run_backward<decltype(zero)>(a, z); });
}

}  // namespace rcm::linear
