#include "linear.cuh"

using namespace rcm;

namespace {

void check(const void* x, const void* w, const LinearSizes& z, int32_t kind) {
  check_linear(x, w, z);
  if (kind < 0 || kind > 3) fail(RCM_E_ARG, "kind: want 0 to 3, got %d", kind);
}

// Another op's function inside this one; its message is already set.
void inner(rcm_status status) {
  if (status != RCM_OK) {
    std::string text = rcm_last_error();
    fail(status, "%s", text.c_str());
  }
}

// h and y, in one pass where cuBLASLt can; tangent and primal call share it, so the primal is the same bit for bit.
void primal(const void* x, const void* w, const void* b, void* h, void* y, const LinearSizes& z, int32_t kind) {
  Product p = linear_product(x, w, b, y, z);
  p.gelu_input = h;
  if (kind == 0 && z.M > 0 && z.N > 0 && matmul_gelu(p)) return;
  p.gelu_input = nullptr;
  p.d = h;
  matmul(p);
  inner(rcm_activation_fwd(h, y, z.M * z.N, kind, z.y_dtype));
}

}  // namespace

rcm_status rcm_linear_gelu_fwd(const void* x, const void* w, const void* b, void* h, void* y, int64_t M, int64_t N, int64_t K, int32_t kind,
                               int32_t x_dtype, int32_t w_dtype, int32_t y_dtype) {
  return gpu_call("linear_gelu_fwd", [&] {
    const LinearSizes z{M, N, K, x_dtype, w_dtype, y_dtype};
    check(x, w, z, kind);
    need(y, "y");
    Workspace own(h ? 0 : (size_t)(M * N * dtype_bytes(y_dtype)));
    primal(x, w, b, h ? h : own.as<void>(), y, z, kind);
  });
}

rcm_status rcm_linear_gelu_jvp(const void* x, const void* w, const void* b, const void* x_dot, void* h, void* y, void* y_dot, int64_t M, int64_t N,
                               int64_t K, int32_t kind, int32_t x_dtype, int32_t w_dtype, int32_t y_dtype) {
  return gpu_call("linear_gelu_jvp", [&] {
    const LinearSizes z{M, N, K, x_dtype, w_dtype, y_dtype};
    check(x, w, z, kind);
    need(x_dot, "x_dot");
    need(y, "y");
    need(y_dot, "y_dot");
    Workspace own(h ? 0 : (size_t)(M * N * dtype_bytes(y_dtype)));
    void* input = h ? h : own.as<void>();
    primal(x, w, b, input, y, z, kind);
    matmul(linear_product(x_dot, w, nullptr, y_dot, z));
    // f'(h) times a vector is what the activation's vjp computes; element-wise, so in place is safe.
    inner(rcm_activation_vjp(input, y_dot, y_dot, M * N, kind, y_dtype));
  });
}

rcm_status rcm_linear_gelu_vjp(const void* x, const void* w, const void* h, const void* y_bar, void* scratch, void* x_bar, void* w_bar, void* b_bar,
                               int64_t M, int64_t N, int64_t K, int32_t kind, int32_t x_dtype, int32_t w_dtype, int32_t y_dtype) {
  return gpu_call("linear_gelu_vjp", [&] {
    const LinearSizes z{M, N, K, x_dtype, w_dtype, y_dtype};
    check(w_bar ? x : w, w, z, kind);
    need(h, "h");
    need(y_bar, "y_bar");
    need(scratch, "scratch");
    inner(rcm_activation_vjp(h, y_bar, scratch, M * N, kind, y_dtype));
    linear_backward(x, w, scratch, x_bar, w_bar, b_bar, z);
  });
}
