#include "cpu/runtime/common.h"

using namespace rcm;

namespace {

// fn(b, i, angle, frequency) for every sample and frequency.
template <class Fn>
void angles(const double* t, int64_t B, int64_t N, Fn&& fn) {
  const int64_t half = N / 2;
  for (int64_t b = 0; b < B; ++b) {
    for (int64_t i = 0; i < half; ++i) {
      const double f = std::pow(10000.0, -(double)i / (double)half);
      fn(b, i, t[b] * f, f);
    }
  }
}

void check(const void* t, const void* y, int64_t B, int64_t N, int32_t dtype) {
  need(t, "t");
  need(y, "y");
  size_at_least(B, 0, "B");
  if (N < 2 || N % 2 != 0) fail(RCM_E_SHAPE, "N: want an even width, got %lld", (long long)N);
  if (dtype != RCM_F32 && dtype != RCM_F64) fail(RCM_E_DTYPE, "y: want f32 or f64, got code %d", dtype);
}

}  // namespace

rcm_status rcm_timestep_embed_fwd(const double* t, void* y, int64_t B, int64_t N, int32_t dtype) {
  return guard("timestep_embed_fwd", [&] {
    check(t, y, B, N, dtype);
    with_compute({dtype}, [&](auto zero) {
      using C = decltype(zero);
      C* out = static_cast<C*>(y);
      angles(t, B, N, [&](int64_t b, int64_t i, double a, double) {
        out[b * N + i] = (C)std::cos(a);
        out[b * N + N / 2 + i] = (C)std::sin(a);
      });
    });
  });
}

rcm_status rcm_timestep_embed_jvp(const double* t, const double* t_dot, void* y, void* y_dot, int64_t B, int64_t N, int32_t dtype) {
  return guard("timestep_embed_jvp", [&] {
    check(t, y, B, N, dtype);
    need(t_dot, "t_dot");
    need(y_dot, "y_dot");
    with_compute({dtype}, [&](auto zero) {
      using C = decltype(zero);
      C *out = static_cast<C*>(y), *dot = static_cast<C*>(y_dot);
      angles(t, B, N, [&](int64_t b, int64_t i, double a, double f) {
        const double c = std::cos(a), s = std::sin(a);
        out[b * N + i] = (C)c;
        out[b * N + N / 2 + i] = (C)s;
        dot[b * N + i] = (C)(-s * f * t_dot[b]);
        dot[b * N + N / 2 + i] = (C)(c * f * t_dot[b]);
      });
    });
  });
}

rcm_status rcm_timestep_embed_vjp(const double* t, const void* y_bar, double* t_bar, int64_t B, int64_t N, int32_t dtype) {
  return guard("timestep_embed_vjp", [&] {
    check(t, y_bar, B, N, dtype);
    need(t_bar, "t_bar");
    with_compute({dtype}, [&](auto zero) {
      using C = decltype(zero);
      const C* bar = static_cast<const C*>(y_bar);
      std::memset(t_bar, 0, (size_t)B * sizeof(double));
      angles(t, B, N, [&](int64_t b, int64_t i, double a, double f) {
        t_bar[b] += f * (std::cos(a) * (double)bar[b * N + N / 2 + i] - std::sin(a) * (double)bar[b * N + i]);
      });
    });
  });
}
