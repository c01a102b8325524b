#include "norm.h"

using namespace rcm;

namespace {

struct Sizes {
  int64_t B, L, D, stride;
  int32_t x_dtype, h_dtype;
};

void check(const Sizes& z) {
  size_at_least(z.B, 0, "B");
  size_at_least(z.L, 0, "L");
  size_at_least(z.D, 0, "D");
}

// y = [x] + gate h + [gate2 h2]; null parts are zero, a null first gate is 1.
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

// dgate[b] += sum_l y_bar h, in rows of a sample.
template <class C>
void gate_sum(const void* h, const void* y_bar, C* into, int64_t first, int64_t last, const Sizes& z) {
  for (int64_t r = first; r < last; ++r) {
    const C* bar = load_row<C>(y_bar, z.x_dtype, r * z.D, z.D, scratch<C>(1, z.D));
    const C* v = load_row<C>(h, z.h_dtype, r * z.D, z.D, scratch<C>(2, z.D));
#pragma omp simd
    for (int64_t i = 0; i < z.D; ++i) into[i] += bar[i] * v[i];
  }
}

}  // namespace

rcm_status rcm_gate_residual_fwd(const void* x, const void* h, const void* gate, void* y, int64_t B, int64_t L, int64_t D, int64_t gate_stride,
                                 int32_t x_dtype, int32_t h_dtype) {
  return guard("gate_residual_fwd", [&] {
    need(x, "x");
    need(h, "h");
    need(y, "y");
    const Sizes z{B, L, D, gate_stride, x_dtype, h_dtype};
    check(z);
    with_compute({x_dtype, h_dtype}, [&](auto zero) {
      using C = decltype(zero);
      mix<C>(x, h, static_cast<const C*>(gate), nullptr, nullptr, y, z);
    });
  });
}

rcm_status rcm_gate_residual_jvp(const void* x, const void* h, const void* gate, const void* x_dot, const void* h_dot, const void* gate_dot, void* y,
                                 void* y_dot, int64_t B, int64_t L, int64_t D, int64_t gate_stride, int32_t x_dtype, int32_t h_dtype) {
  return guard("gate_residual_jvp", [&] {
    need(x, "x");
    need(h, "h");
    need(y, "y");
    need(y_dot, "y_dot");
    const Sizes z{B, L, D, gate_stride, x_dtype, h_dtype};
    check(z);
    with_compute({x_dtype, h_dtype}, [&](auto zero) {
      using C = decltype(zero);
      const C *g = static_cast<const C*>(gate), *gd = static_cast<const C*>(gate_dot);
      mix<C>(x, h, g, nullptr, nullptr, y, z);
      mix<C>(x_dot, h_dot, g, gd ? h : nullptr, gd, y_dot, z);
    });
  });
}

rcm_status rcm_gate_residual_vjp(const void* h, const void* gate, const void* y_bar, void* h_bar, void* gate_bar, int64_t B, int64_t L, int64_t D,
                                 int64_t gate_stride, int32_t x_dtype, int32_t h_dtype) {
  return guard("gate_residual_vjp", [&] {
    need(y_bar, "y_bar");
    const Sizes z{B, L, D, gate_stride, x_dtype, h_dtype};
    check(z);
    with_compute({x_dtype, h_dtype}, [&](auto zero) {
      using C = decltype(zero);
      if (h_bar) {
        const Sizes swapped{B, L, D, gate_stride, h_dtype, x_dtype};
        mix<C>(nullptr, y_bar, static_cast<const C*>(gate), nullptr, nullptr, h_bar, swapped);
      }
      if (!gate_bar) return;
      need(h, "h");
      C* into = static_cast<C*>(gate_bar);
      if (B >= threads()) {
        parallel_for(B, 1, [&](int64_t from, int64_t to, int) {
          C* sum = scratch<C>(3, D);
          for (int64_t b = from; b < to; ++b) {
            std::memset(sum, 0, (size_t)D * sizeof(C));
            gate_sum<C>(h, y_bar, sum, b * L, (b + 1) * L, z);
            for (int64_t i = 0; i < D; ++i) into[b * gate_stride + i] += sum[i];
          }
        });
        return;
      }
      for (int64_t b = 0; b < B; ++b) {
        Partials<C> sums = partials<C>(D);
        parallel_for(L, 64, [&](int64_t from, int64_t to, int part) { gate_sum<C>(h, y_bar, sums.of(part), b * L + from, b * L + to, z); });
        sums.add_to(into + b * gate_stride, 0, D);
      }
    });
  });
}
