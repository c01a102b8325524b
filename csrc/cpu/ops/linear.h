// Row-chunked matmul shared by linear and linear_gelu.
#pragma once
#include "cpu/runtime/blas.h"
#include "shared/ops/linear.h"

namespace rcm {

// Rows of a chunk, few enough that its inputs and outputs stay in L2 while bias and activation run over them.
constexpr int64_t kChunkRows = 192;

// Weights as C: in place when they are stored as C, else a converted copy (scratch slot 0). Call outside parallel
// regions.
template <class C>
const C* weights(const void* w, int32_t dtype, int64_t n) {
  if (dtype == native_dtype<C>()) return static_cast<const C*>(w);
  C* copy = scratch<C>(0, n);
  parallel_for(n, 1 << 14, [&](int64_t from, int64_t to, int) { load_row<C>(w, dtype, from, to - from, copy + from); });
  return copy;
}

// h = x w^T + b by chunks of rows. into(row) says where the chunk's h is written (null: scratch); done(row, rows, h)
// then runs while h is still in cache.
template <class C, class Into, class Done>
void matmul_rows(const void* x, int32_t x_dtype, const C* w, const C* bias, int64_t M, int64_t N, int64_t K,
                 Into&& into, Done&& done) {
  parallel_for(M, 16, [&](int64_t from, int64_t to, int) {
    for (int64_t r = from; r < to; r += kChunkRows) {
      const int64_t rows = to - r < kChunkRows ? to - r : kChunkRows;
      const C* in = load_row<C>(x, x_dtype, r * K, rows * K,
                                x_dtype == native_dtype<C>() ? nullptr : scratch<C>(1, kChunkRows * K));
      C* h = into(r);
      if (h == nullptr) h = scratch<C>(2, kChunkRows * N);
      gemm(false, true, rows, N, K, in, K, w, K, (C)0, h, N);
      if (bias) {
        for (int64_t i = 0; i < rows; ++i) {
          C* row = h + i * N;
#pragma omp simd
          for (int64_t j = 0; j < N; ++j) row[j] += bias[j];
        }
      }
      done(r, rows, h);
    }
  });
}

}  // namespace rcm
