#include "linear.cuh"
#include "shared/ops/linear_gelu.h"

namespace rcm::linear_gelu {
namespace {

activation::Sizes activation_sizes(const Sizes& z) { return {z.linear.M * z.linear.N, z.kind, z.linear.y_dtype}; }

// h and y, in one pass where cuBLASLt has a kernel for it. _fwd and _jvp share it, so their primals agree bit for bit.
void primal(const Forward& a, void* h, const Sizes& z) {
  Product p = linear::product(a.x, a.w, a.b, a.y, z.linear);
  p.gelu_input = h;
  if (z.kind == activation::kGeluTanh && z.linear.M > 0 && z.linear.N > 0 && matmul_gelu(p)) return;
  p.gelu_input = nullptr;
  p.d = h;
  matmul(p);
  activation::forward({h, nullptr, a.y, nullptr}, activation_sizes(z));
}

}  // namespace

void forward(const Forward& a, const Sizes& z) {
  const activation::Sizes sizes = activation_sizes(z);
  const Workspace scratch(a.h ? 0 : (size_t)(sizes.n * dtype_bytes(sizes.dtype)));
  void* h = a.h ? a.h : scratch.as<void>();
  primal(a, h, z);
  if (!a.y_dot) return;
  matmul(linear::product(a.x_dot, a.w, nullptr, a.y_dot, z.linear));
  // f'(h) times a vector is the activation's vjp; it is element-wise, so it may run in place.
  activation::backward({h, a.y_dot, a.y_dot}, sizes);
}

void backward(const Backward& a, const Sizes& z) {
  activation::backward({a.h, a.y_bar, a.scratch}, activation_sizes(z));
  linear::backward({a.x, a.w, a.scratch, a.x_bar, a.w_bar, a.b_bar}, z.linear);
}

}  // namespace rcm::linear_gelu
