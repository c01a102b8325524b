// Single-threaded matrix product: a system BLAS found at run time, or the built-in blocked one.
#pragma once
#include <string>

#include "common.h"

namespace rcm {

using Sgemm = void (*)(int order, int ta, int tb, int m, int n, int k, float alpha, const float* a, int lda,
                       const float* b, int ldb, float beta, float* c, int ldc);
using Dgemm = void (*)(int order, int ta, int tb, int m, int n, int k, double alpha, const double* a, int lda,
                       const double* b, int ldb, double beta, double* c, int ldc);

struct Blas {
  std::string name;
  Sgemm sgemm = nullptr;
  Dgemm dgemm = nullptr;
};

// Opened once. RCM_BLAS names a library file, or "none" for the built-in product.
const Blas& blas();

// Row-major c[m,n] = op(a) op(b) + beta c on the calling thread. ta: a is stored [k,m]; tb: b is stored [n,k].
void gemm(bool ta, bool tb, int64_t m, int64_t n, int64_t k, const float* a, int64_t lda, const float* b, int64_t ldb,
          float beta, float* c, int64_t ldc);
void gemm(bool ta, bool tb, int64_t m, int64_t n, int64_t k, const double* a, int64_t lda, const double* b, int64_t ldb,
          double beta, double* c, int64_t ldc);

// The built-in product.
template <class C>
void gemm_blocked(bool ta, bool tb, int64_t m, int64_t n, int64_t k, const C* a, int64_t lda, const C* b, int64_t ldb,
                  C beta, C* c, int64_t ldc);

}  // namespace rcm
