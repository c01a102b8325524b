#include "cpu/runtime/common.h"
#include "simd_math.h"

using namespace rcm;

namespace {

constexpr int64_t kBlock = 4096;

// fn(act, first, n) with the activation's code as a compile-time constant.
template <class Fn>
void each(int64_t n, int32_t kind, Fn&& fn) {
  size_at_least(n, 0, "n");
  const bool known = with_kind(kind, [&](auto act) {
    parallel_for(n, kBlock, [&](int64_t from, int64_t to, int) {
      for (int64_t i = from; i < to; i += kBlock) fn(act, i, to - i < kBlock ? to - i : kBlock);
    });
  });
  if (!known) fail(RCM_E_ARG, "kind: want 0 to 3, got %d", kind);
}

}  // namespace

rcm_status rcm_activation_fwd(const void* x, void* y, int64_t n, int32_t kind, int32_t dtype) {
  return guard("activation_fwd", [&] {
    need(x, "x");
    need(y, "y");
    with_compute({dtype}, [&](auto zero) {
      using C = decltype(zero);
      each(n, kind, [&](auto act, int64_t i, int64_t m) {
        C* out = row_target<C>(y, dtype, i, scratch<C>(1, kBlock));
        activate_row<decltype(act)::value>(load_row<C>(x, dtype, i, m, scratch<C>(0, kBlock)), out, m);
        store_row<C>(y, dtype, i, m, out);
      });
    });
  });
}

rcm_status rcm_activation_jvp(const void* x, const void* x_dot, void* y, void* y_dot, int64_t n, int32_t kind, int32_t dtype) {
  return guard("activation_jvp", [&] {
    need(x, "x");
    need(x_dot, "x_dot");
    need(y, "y");
    need(y_dot, "y_dot");
    with_compute({dtype}, [&](auto zero) {
      using C = decltype(zero);
      each(n, kind, [&](auto act, int64_t i, int64_t m) {
        C* out = row_target<C>(y, dtype, i, scratch<C>(1, kBlock));
        C* out_dot = row_target<C>(y_dot, dtype, i, scratch<C>(2, kBlock));
        const C* dot = load_row<C>(x_dot, dtype, i, m, scratch<C>(3, kBlock));
        activate_row_dot<decltype(act)::value>(load_row<C>(x, dtype, i, m, scratch<C>(0, kBlock)), dot, out, out_dot, m);
        store_row<C>(y, dtype, i, m, out);
        store_row<C>(y_dot, dtype, i, m, out_dot);
      });
    });
  });
}

rcm_status rcm_activation_vjp(const void* x, const void* y_bar, void* x_bar, int64_t n, int32_t kind, int32_t dtype) {
  return guard("activation_vjp", [&] {
    need(x, "x");
    need(y_bar, "y_bar");
    need(x_bar, "x_bar");
    with_compute({dtype}, [&](auto zero) {
      using C = decltype(zero);
      each(n, kind, [&](auto act, int64_t i, int64_t m) {
        C* out = row_target<C>(x_bar, dtype, i, scratch<C>(1, kBlock));
        const C* bar = load_row<C>(y_bar, dtype, i, m, scratch<C>(2, kBlock));
        activate_row_bar<decltype(act)::value>(load_row<C>(x, dtype, i, m, scratch<C>(0, kBlock)), bar, out, m);
        store_row<C>(x_bar, dtype, i, m, out);
      });
    });
  });
}
