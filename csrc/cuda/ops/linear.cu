#include "linear.cuh"

namespace rcm::linear {

void forward(const Forward& a, const Sizes& z) {
  matmul(product(a.x, a.w, a.b, a.y, z));
  if (a.y_dot) matmul(product(a.x_dot, a.w, nullptr, a.y_dot, z));
}

void backward(const Backward& a, const Sizes& z) {
  const Operand y_bar{a.y_bar, z.y_dtype, false}, y_bar_t{a.y_bar, z.y_dtype, true};
  const int32_t stat = z.y_dtype == RCM_F64 ? RCM_F64 : RCM_F32;
  if (a.x_bar) matmul({z.M, z.K, z.N, y_bar, {a.w, z.w_dtype, false}, a.x_bar, z.x_dtype});
  if (a.w_bar && z.M > 0) matmul({z.N, z.K, z.M, y_bar_t, {a.x, z.x_dtype, false}, a.w_bar, stat, true});
  if (a.b_bar) add_column_sums(a.y_bar, z.y_dtype, a.b_bar, z.M, z.N);
}

}  // namespace rcm::linear
