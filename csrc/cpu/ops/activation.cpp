#include "cpu/runtime/common.h"
#include "simd_math.h"
#include "shared/ops/activation.h"

namespace rcm::activation {
namespace {

constexpr int64_t kBlock = 4096;

// fn(act, first, n) over blocks of elements; `act` is the activation's code as a compile-time constant.
template <class Fn>
void each(const Sizes& z, Fn&& fn) {
  with_kind(z.kind, [&](auto act) {
    parallel_for(z.n, kBlock, [&](int64_t from, int64_t to, int) {
      for (int64_t i = from; i < to; i += kBlock) fn(act, i, to - i < kBlock ? to - i : kBlock);
    });
  });
}

}  // namespace

void forward(const Forward& a, const Sizes& z) {
  const int32_t dtype = z.dtype;
  with_compute({dtype}, [&](auto zero) {
    using C = decltype(zero);
    each(z, [&](auto act, int64_t i, int64_t m) {
      const C* x = load_row<C>(a.x, dtype, i, m, scratch<C>(0, kBlock));
      C* y = row_target<C>(a.y, dtype, i, scratch<C>(1, kBlock));
      if (a.y_dot) {
        C* y_dot = row_target<C>(a.y_dot, dtype, i, scratch<C>(2, kBlock));
        activate_row_dot<decltype(act)::value>(x, load_row<C>(a.x_dot, dtype, i, m, scratch<C>(3, kBlock)), y, y_dot,
                                               m);
        store_row<C>(a.y_dot, dtype, i, m, y_dot);
      } else {
        activate_row<decltype(act)::value>(x, y, m);
      }
      store_row<C>(a.y, dtype, i, m, y);
    });
  });
}

void backward(const Backward& a, const Sizes& z) {
  const int32_t dtype = z.dtype;
  with_compute({dtype}, [&](auto zero) {
    using C = decltype(zero);
    each(z, [&](auto act, int64_t i, int64_t m) {
      C* x_bar = row_target<C>(a.x_bar, dtype, i, scratch<C>(1, kBlock));
      const C* y_bar = load_row<C>(a.y_bar, dtype, i, m, scratch<C>(2, kBlock));
      activate_row_bar<decltype(act)::value>(load_row<C>(a.x, dtype, i, m, scratch<C>(0, kBlock)), y_bar, x_bar, m);
      store_row<C>(a.x_bar, dtype, i, m, x_bar);
    });
  });
}

}  // namespace rcm::activation
