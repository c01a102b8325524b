// The product behind linear and linear_gelu.
#pragma once
#include "cuda/matmul/matmul.cuh"
#include "shared/ops/linear.h"

namespace rcm::linear {

// y = x w^T + b.
inline Product product(const void* x, const void* w, const void* b, void* y, const Sizes& z) {
  Product p{z.M, z.N, z.K, {x, z.x_dtype, false}, {w, z.w_dtype, true}, y, z.y_dtype};
  p.bias = b;
  p.bias_dtype = z.w_dtype;
  return p;
}

}  // namespace rcm::linear
