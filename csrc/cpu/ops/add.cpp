#include "cpu/runtime/common.h"
#include "shared/ops/add.h"

namespace rcm::add {
namespace {

template <class C>
void sum(const void* a, const void* b, void* y, int64_t n, int32_t dtype) {
  parallel_for(n, 1 << 15, [&](int64_t from, int64_t to, int) {
    for (int64_t i = from; i < to; i += 4096) {
      const int64_t m = to - i < 4096 ? to - i : 4096;
      C* out = row_target<C>(y, dtype, i, scratch<C>(2, 4096));
      const C* u = a ? load_row<C>(a, dtype, i, m, scratch<C>(0, 4096)) : nullptr;
      const C* v = b ? load_row<C>(b, dtype, i, m, scratch<C>(1, 4096)) : nullptr;
#pragma omp simd
      for (int64_t j = 0; j < m; ++j) out[j] = (u ? u[j] : 0) + (v ? v[j] : 0);
      store_row<C>(y, dtype, i, m, out);
    }
  });
}

void sum_of(const void* a, const void* b, void* y, int64_t n, int32_t dtype) {
  with_compute({dtype}, [&](auto zero) { sum<decltype(zero)>(a, b, y, n, dtype); });
}

}  // namespace

void forward(const Forward& a, const Sizes& z) {
  sum_of(a.a, a.b, a.y, z.n, z.dtype);
  if (a.y_dot) sum_of(a.a_dot, a.b_dot, a.y_dot, z.n, z.dtype);
}

void backward(const Backward& a, const Sizes& z) {
  for (void* out : {a.a_bar, a.b_bar}) {
    if (out) sum_of(a.y_bar, nullptr, out, z.n, z.dtype);
  }
}

}  // namespace rcm::add
