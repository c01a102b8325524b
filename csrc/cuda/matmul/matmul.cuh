// Row-major matrix products on the compute stream: cuBLASLt with fused epilogues, or the built-in kernel where it has
// none.
#pragma once
#include "cuda/runtime/common.cuh"

namespace rcm {

struct Operand {
  const void* data;
  int32_t dtype;
  bool transposed;  // stored as the transpose of the factor
};

struct Product {
  int64_t M, N, K;  // D[M,N] = A[M,K] B[K,N] (+ D when accumulate)
  Operand a, b;
  void* d;
  int32_t d_dtype;
  bool accumulate = false;
  const void* bias = nullptr;  // [N] of bias_dtype, added to every row
  int32_t bias_dtype = RCM_F32;
  void* gelu_input = nullptr;  // see matmul_gelu
};

void matmul(const Product& p);

// d = GELU (tanh form) of the product, and the product itself in gelu_input (d_dtype), in one pass. Returns false,
// having done nothing, where cuBLASLt has no kernel for it.
bool matmul_gelu(const Product& p);

// sums[j] += sum_i x[i,j] in a fixed order; x [M,N], sums [N] in stat dtype.
void add_column_sums(const void* x, int32_t dtype, void* sums, int64_t M, int64_t N);

}  // namespace rcm
