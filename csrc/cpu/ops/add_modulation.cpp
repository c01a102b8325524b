#include "cpu/runtime/common.h"
#include "shared/ops/add_modulation.h"

namespace rcm::add_modulation {
namespace {

// y = p + e; a null p is zero.
template <class C>
void sum(const void* p, const C* e, C* y, const Sizes& z) {
  parallel_for(z.B * z.S, 64, [&](int64_t from, int64_t to, int) {
    for (int64_t r = from; r < to; ++r) {
      const C* in = e + (z.Se == 1 ? r / z.S : r) * z.D;
      const C* w = p ? load_row<C>(p, z.p_dtype, r % z.S * z.D, z.D, scratch<C>(0, z.D)) : nullptr;
      C* out = y + r * z.D;
#pragma omp simd
      for (int64_t i = 0; i < z.D; ++i) out[i] = (w ? w[i] : 0) + in[i];
    }
  });
}

template <class C>
void run_backward(const Backward& a, const Sizes& z) {
  const C* y_bar = static_cast<const C*>(a.y_bar);
  if (a.p_bar) {
    C* into = static_cast<C*>(a.p_bar);
    parallel_for(z.S * z.D, 256, [&](int64_t from, int64_t to, int) {
      for (int64_t i = from; i < to; ++i) {
        double sum = 0;
        for (int64_t b = 0; b < z.B; ++b) sum += (double)y_bar[b * z.S * z.D + i];
        into[i] += (C)sum;
      }
    });
  }
  if (!a.e_bar) return;
  C* out = static_cast<C*>(a.e_bar);
  if (z.Se == z.S) {
    std::memcpy(out, y_bar, (size_t)(z.B * z.S * z.D) * sizeof(C));
    return;
  }
  parallel_for(z.B, 16, [&](int64_t from, int64_t to, int) {
    for (int64_t b = from; b < to; ++b) {
      for (int64_t i = 0; i < z.D; ++i) {
        C sum = 0;
        for (int64_t s = 0; s < z.S; ++s) sum += y_bar[(b * z.S + s) * z.D + i];
        out[b * z.D + i] = sum;
      }
    }
  });
}

}  // namespace

void forward(const Forward& a, const Sizes& z) {
  with_compute({z.dtype}, [&](auto zero) {
    using C = decltype(zero);
    sum<C>(a.p, static_cast<const C*>(a.e), static_cast<C*>(a.y), z);
    if (a.y_dot) sum<C>(nullptr, static_cast<const C*>(a.e_dot), static_cast<C*>(a.y_dot), z);
  });
}

void backward(const Backward& a, const Sizes& z) {
  with_compute({z.dtype}, [&](auto zero) { run_backward<decltype(zero)>(a, z); });
}

}  // namespace rcm::add_modulation
