#include "norm.h"
#include "shared/ops/gate_residual.h"

namespace rcm::gate_residual {
namespace {

// y = x + gate h + gate2 h2. Null x, h and h2 are zero; a null first gate is 1.
template <class C>
void mix(const void* x, const void* h, const C* gate, const void* h2, const C* gate2, void* y, const Sizes& z) {
  const int64_t D = z.D;
  parallel_for(z.B * z.L, 64, [&](int64_t from, int64_t to, int) {
    for (int64_t r = from; r < to; ++r) {
      const int64_t mod = r / z.L * z.stride;
      C* out = row_target<C>(y, z.x_dtype, r * D, scratch<C>(0, D));
      if (x) {
        const C* in = load_row<C>(x, z.x_dtype, r * D, D, scratch<C>(1, D));
        std::memcpy(out, in, (size_t)D * sizeof(C));
      } else {
        std::memset(out, 0, (size_t)D * sizeof(C));
      }
      auto add = [&](const void* source, const C* g) {
        const C* v = load_row<C>(source, z.h_dtype, r * D, D, scratch<C>(2, D));
        if (g) {
          const C* w = g + mod;
#pragma omp simd
          for (int64_t i = 0; i < D; ++i) out[i] += w[i] * v[i];
        } else {
#pragma omp simd
          for (int64_t i = 0; i < D; ++i) out[i] += v[i];
        }
      };
      if (h) add(h, gate);
      if (h2) add(h2, gate2);
      store_row<C>(y, z.x_dtype, r * D, D, out);
    }
  });
}

// into[:] += the sum of y_bar h over rows [first, last).
template <class C>
void gate_sum(const void* h, const void* y_bar, C* into, int64_t first, int64_t last, const Sizes& z) {
  for (int64_t r = first; r < last; ++r) {
    const C* bar = load_row<C>(y_bar, z.x_dtype, r * z.D, z.D, scratch<C>(1, z.D));
    const C* v = load_row<C>(h, z.h_dtype, r * z.D, z.D, scratch<C>(2, z.D));
#pragma omp simd
    for (int64_t i = 0; i < z.D; ++i) into[i] += bar[i] * v[i];
  }
}

template <class C>
void run_backward(const Backward& a, const Sizes& z) {
  const int64_t D = z.D;
  if (a.h_bar) {
    const Sizes swapped{z.B, z.L, D, z.stride, z.h_dtype, z.x_dtype};
    mix<C>(nullptr, a.y_bar, static_cast<const C*>(a.gate), nullptr, nullptr, a.h_bar, swapped);
  }
  if (!a.gate_bar) return;
  C* into = static_cast<C*>(a.gate_bar);
  if (z.B >= threads()) {
    parallel_for(z.B, 1, [&](int64_t from, int64_t to, int) {
      C* sum = scratch<C>(3, D);
      for (int64_t b = from; b < to; ++b) {
        std::memset(sum, 0, (size_t)D * sizeof(C));
        gate_sum<C>(a.h, a.y_bar, sum, b * z.L, (b + 1) * z.L, z);
        for (int64_t i = 0; i < D; ++i) into[b * z.stride + i] += sum[i];
      }
    });
    return;
  }
  for (int64_t b = 0; b < z.B; ++b) {
    Partials<C> sums = partials<C>(D);
    parallel_for(z.L, 64, [&](int64_t from, int64_t to, int part) {
      gate_sum<C>(a.h, a.y_bar, sums.of(part), b * z.L + from, b * z.L + to, z);
    });
    sums.add_to(into + b * z.stride, 0, D);
  }
}

}  // namespace

void forward(const Forward& a, const Sizes& z) {
  with_compute({z.x_dtype, z.h_dtype}, [&](auto zero) {
    using C = decltype(zero);
    const C *gate = static_cast<const C*>(a.gate), *gate_dot = static_cast<const C*>(a.gate_dot);
    mix<C>(a.x, a.h, gate, nullptr, nullptr, a.y, z);
    if (a.y_dot) mix<C>(a.x_dot, a.h_dot, gate, gate_dot ? a.h : nullptr, gate_dot, a.y_dot, z);
  });
}

void backward(const Backward& a, const Sizes& z) {
  with_compute({z.x_dtype, z.h_dtype}, [&](auto zero) { run_backward<decltype(zero)>(a, z); });
}

}  // namespace rcm::gate_residual
