#include "linear.h"
#include "simd_math.h"

namespace rcm {
namespace {

void check(const void* x, const void* w, int64_t M, int64_t N, int64_t K, int32_t kind) {
  size_at_least(M, 0, "M");
  size_at_least(N, 0, "N");
  size_at_least(K, 0, "K");
  if (kind < 0 || kind > 3) fail(RCM_E_ARG, "kind: want 0 to 3, got %d", kind);
  need(x, "x");
  need(w, "w");
}

template <class C, class A>
void forward(A, const void* x, const C* w, const C* bias, const void* x_dot, void* h, void* y, void* y_dot, int64_t M, int64_t N, int64_t K,
             int32_t x_dtype, int32_t y_dtype) {
  const bool direct = y_dtype == native_dtype<C>();
  matmul_rows<C>(
      x, x_dtype, w, bias, M, N, K, [&](int64_t r) { return direct && h ? static_cast<C*>(h) + r * N : nullptr; },
      [&](int64_t r, int64_t rows, C* pre) {
        if (h) store_row<C>(h, y_dtype, r * N, rows * N, pre);
        C* out = row_target<C>(y, y_dtype, r * N, direct ? nullptr : scratch<C>(6, kChunkRows * N));
        if (x_dot) {
          const C* in = load_row<C>(x_dot, x_dtype, r * K, rows * K, x_dtype == native_dtype<C>() ? nullptr : scratch<C>(1, kChunkRows * K));
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

void run(const void* x, const void* w, const void* b, const void* x_dot, void* h, void* y, void* y_dot, int64_t M, int64_t N, int64_t K, int32_t kind,
         int32_t x_dtype, int32_t w_dtype, int32_t y_dtype) {
  check(x, w, M, N, K, kind);
  need(y, "y");
  with_compute({x_dtype, w_dtype, y_dtype}, [&](auto zero) {
    using C = decltype(zero);
    const C* W = weights<C>(w, w_dtype, N * K);
    const C* bias = b ? load_row<C>(b, w_dtype, 0, N, scratch<C>(5, N)) : nullptr;
    with_kind(kind, [&](auto act) { forward<C>(act, x, W, bias, x_dot, h, y, y_dot, M, N, K, x_dtype, y_dtype); });
  });
}

}  // namespace
}  // namespace rcm

using namespace rcm;

rcm_status rcm_linear_gelu_fwd(const void* x, const void* w, const void* b, void* h, void* y, int64_t M, int64_t N, int64_t K, int32_t kind,
                               int32_t x_dtype, int32_t w_dtype, int32_t y_dtype) {
  return guard("linear_gelu_fwd", [&] { run(x, w, b, nullptr, h, y, nullptr, M, N, K, kind, x_dtype, w_dtype, y_dtype); });
}

rcm_status rcm_linear_gelu_jvp(const void* x, const void* w, const void* b, const void* x_dot, void* h, void* y, void* y_dot, int64_t M, int64_t N,
                               int64_t K, int32_t kind, int32_t x_dtype, int32_t w_dtype, int32_t y_dtype) {
  return guard("linear_gelu_jvp", [&] {
    need(x_dot, "x_dot");
    need(y_dot, "y_dot");
    run(x, w, b, x_dot, h, y, y_dot, M, N, K, kind, x_dtype, w_dtype, y_dtype);
  });
}

rcm_status rcm_linear_gelu_vjp(const void* x, const void* w, const void* h, const void* y_bar, void* buffer, void* x_bar, void* w_bar, void* b_bar,
                               int64_t M, int64_t N, int64_t K, int32_t kind, int32_t x_dtype, int32_t w_dtype, int32_t y_dtype) {
  return guard("linear_gelu_vjp", [&] {
    check(w_bar ? x : w, w, M, N, K, kind);
    need(h, "h");
    need(y_bar, "y_bar");
    need(buffer, "scratch");
    with_compute({x_dtype, w_dtype, y_dtype}, [&](auto zero) {
      using C = decltype(zero);
      with_kind(kind, [&](auto act) {
        parallel_for(M * N, 4096, [&](int64_t from, int64_t to, int) {
          for (int64_t i = from; i < to; i += 4096) {
            const int64_t n = to - i < 4096 ? to - i : 4096;
            const C* pre = load_row<C>(h, y_dtype, i, n, scratch<C>(1, 4096));
            const C* bar = load_row<C>(y_bar, y_dtype, i, n, scratch<C>(2, 4096));
            C* out = row_target<C>(buffer, y_dtype, i, scratch<C>(6, 4096));
            activate_row_bar<decltype(act)::value>(pre, bar, out, n);
            store_row<C>(buffer, y_dtype, i, n, out);
          }
        });
      });
      matmul_vjp<C>(x, w, buffer, x_bar, w_bar, b_bar, M, N, K, x_dtype, w_dtype, y_dtype);
    });
  });
}
