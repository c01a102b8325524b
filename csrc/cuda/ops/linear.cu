#include "linear.cuh"

using namespace rcm;

rcm_status rcm_linear_fwd(const void* x, const void* w, const void* b, void* y, int64_t M, int64_t N, int64_t K, int32_t x_dtype, int32_t w_dtype,
                          int32_t y_dtype) {
  return gpu_call("linear_fwd", [&] {
    const LinearSizes z{M, N, K, x_dtype, w_dtype, y_dtype};
    check_linear(x, w, z);
    need(y, "y");
    matmul(linear_product(x, w, b, y, z));
  });
}

rcm_status rcm_linear_jvp(const void* x, const void* w, const void* b, const void* x_dot, void* y, void* y_dot, int64_t M, int64_t N, int64_t K,
                          int32_t x_dtype, int32_t w_dtype, int32_t y_dtype) {
  return gpu_call("linear_jvp", [&] {
    const LinearSizes z{M, N, K, x_dtype, w_dtype, y_dtype};
    check_linear(x, w, z);
    need(x_dot, "x_dot");
    need(y, "y");
    need(y_dot, "y_dot");
    matmul(linear_product(x, w, b, y, z));
    matmul(linear_product(x_dot, w, nullptr, y_dot, z));
  });
}

rcm_status rcm_linear_vjp(const void* x, const void* w, const void* y_bar, void* x_bar, void* w_bar, void* b_bar, int64_t M, int64_t N, int64_t K,
                          int32_t x_dtype, int32_t w_dtype, int32_t y_dtype) {
  return gpu_call("linear_vjp", [&] {
    const LinearSizes z{M, N, K, x_dtype, w_dtype, y_dtype};
    check_linear(w_bar ? x : w, w, z);
    need(y_bar, "y_bar");
    linear_backward(x, w, y_bar, x_bar, w_bar, b_bar, z);
  });
}
