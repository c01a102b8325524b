#include "linear.h"
#include "shared/ops/linear_gelu.h"
#include "simd_math.h"

namespace rcm::linear_gelu {
namespace {

template <class C, class A>
void run(A, const Forward& a, const C* w, const C* bias, const linear::Sizes& z) {
  const int64_t N = z.N, K = z.K;
  const int32_t x_dtype = z.x_dtype, y_dtype = z.y_dtype;
  void *h = a.h, *y = a.y, *y_dot = a.y_dot;
  const bool direct = y_dtype == native_dtype<C>();
  matmul_rows<C>(
      a.x, x_dtype, w, bias, z.M, N, K, [&](int64_t r) { return direct && h ? static_cast<C*>(h) + r * N : nullptr; },
      [&](int64_t r, int64_t rows, C* pre) {
        if (h) store_row<C>(h, y_dtype, r * N, rows * N, pre);
        C* out = row_target<C>(y, y_dtype, r * N, direct ? nullptr : scratch<C>(6, kChunkRows * N));
        if (a.x_dot) {
          const C* in = load_row<C>(a.x_dot, x_dtype, r * K, rows * K,
                                    x_dtype == native_dtype<C>() ? nullptr : scratch<C>(1, kChunkRows * K));
          C* dot = scratch<C>(7, kChunkRows * N);
          gemm(false, true, rows, N, K, in, K, w, K, (C)0, dot, N);
          C* out_dot = row_target<C>(y_dot, y_dtype, r * N, direct ? nullptr : scratch<C>(8, kChunkRows * N));
          activate_row_dot<A::value>(pre, dot, out, out_dot, rows * N);
          store_row<C>(y_dot, y_dtype, r * N, rows * N, out_dot);
        } else {
          activate_row<A::value>(pre, out, rows * N);
        }
        store_row<C>(y, y_dtype, r * N, rows * N, out);
      });
}

}  // namespace

void forward(const Forward& a, const Sizes& z) {
  const linear::Sizes& m = z.linear;
  with_compute({m.x_dtype, m.w_dtype, m.y_dtype}, [&](auto zero) {
    using C = decltype(zero);
    const C* w = weights<C>(a.w, m.w_dtype, m.N * m.K);
    const C* bias = a.b ? load_row<C>(a.b, m.w_dtype, 0, m.N, scratch<C>(5, m.N)) : nullptr;
    activation::with_kind(z.kind, [&](auto act) { run<C>(act, a, w, bias, m); });
  });
}

void backward(const Backward& a, const Sizes& z) {
  activation::backward({a.h, a.y_bar, a.scratch}, {z.linear.M * z.linear.N, z.kind, z.linear.y_dtype});
  linear::backward({a.x, a.w, a.scratch, a.x_bar, a.w_bar, a.b_bar}, z.linear);
}

}  // namespace rcm::linear_gelu
