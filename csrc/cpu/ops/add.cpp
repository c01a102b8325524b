#include "cpu/runtime/common.h"

using namespace rcm;

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

rcm_status rcm_add_fwd(const void* a, const void* b, void* y, int64_t n, int32_t dtype) {
  return guard("add_fwd", [&] {
    need(a, "a");
    need(b, "b");
    need(y, "y");
    size_at_least(n, 0, "n");
    sum_of(a, b, y, n, dtype);
  });
}

rcm_status rcm_add_jvp(const void* a, const void* b, const void* a_dot, const void* b_dot, void* y, void* y_dot, int64_t n, int32_t dtype) {
  return guard("add_jvp", [&] {
    need(a, "a");
    need(b, "b");
    need(y, "y");
    need(y_dot, "y_dot");
    size_at_least(n, 0, "n");
    sum_of(a, b, y, n, dtype);
    sum_of(a_dot, b_dot, y_dot, n, dtype);
  });
}

rcm_status rcm_add_vjp(const void* y_bar, void* a_bar, void* b_bar, int64_t n, int32_t dtype) {
  return guard("add_vjp", [&] {
    need(y_bar, "y_bar");
    size_at_least(n, 0, "n");
    for (void* out : {a_bar, b_bar}) {
      if (out) sum_of(y_bar, nullptr, out, n, dtype);
    }
  });
}
