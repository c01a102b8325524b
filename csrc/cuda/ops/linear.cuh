// What linear and linear_gelu share.
#pragma once
#include "cuda/matmul/matmul.cuh"

namespace rcm {

struct LinearSizes {
  int64_t M, N, K;
  int32_t x_dtype, w_dtype, y_dtype;
};

inline void check_linear(const void* x, const void* w, const LinearSizes& z) {
  size_at_least(z.M, 0, "M");
  size_at_least(z.N, 0, "N");
  size_at_least(z.K, 0, "K");
  if (z.N > INT32_MAX || z.K > INT32_MAX) fail(RCM_E_SHAPE, "N and K: want below 2^31");
  need(x, "x");
  need(w, "w");
  for (int32_t d : {z.x_dtype, z.w_dtype, z.y_dtype}) same_kind(d, z.x_dtype == RCM_F64, "dtype");
}

// y = x w^T + b.
inline Product linear_product(const void* x, const void* w, const void* b, void* y, const LinearSizes& z) {
  Product p{z.M, z.N, z.K, {x, z.x_dtype, false}, {w, z.w_dtype, true}, y, z.y_dtype};
  p.bias = b;
  p.bias_dtype = z.w_dtype;
  return p;
}

// x_bar = y_bar w; w_bar += y_bar^T x; b_bar += column sums of y_bar.
inline void linear_backward(const void* x, const void* w, const void* y_bar, void* x_bar, void* w_bar, void* b_bar, const LinearSizes& z) {
  const int32_t stat = z.y_dtype == RCM_F64 ? RCM_F64 : RCM_F32;
  if (x_bar) matmul({z.M, z.K, z.N, {y_bar, z.y_dtype, false}, {w, z.w_dtype, false}, x_bar, z.x_dtype});
  if (w_bar && z.M > 0) matmul({z.N, z.K, z.M, {y_bar, z.y_dtype, true}, {x, z.x_dtype, false}, w_bar, stat, true});
  if (b_bar) add_column_sums(y_bar, z.y_dtype, b_bar, z.M, z.N);
}

}  // namespace rcm
