#include "cpu/runtime/common.h"
#include "shared/ops/timestep_embed.h"

namespace rcm::timestep_embed {
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

}  // namespace

void forward(const Forward& a, const Sizes& z) {
  with_compute({z.dtype}, [&](auto zero) {
    using C = decltype(zero);
    C *y = static_cast<C*>(a.y), *y_dot = static_cast<C*>(a.y_dot);
    angles(a.t, z.B, z.N, [&](int64_t b, int64_t i, double angle, double f) {
      const double c = std::cos(angle), s = std::sin(angle);
      y[b * z.N + i] = (C)c;
      y[b * z.N + z.N / 2 + i] = (C)s;
      if (!y_dot) return;
      y_dot[b * z.N + i] = (C)(-s * f * a.t_dot[b]);
      y_dot[b * z.N + z.N / 2 + i] = (C)(c * f * a.t_dot[b]);
    });
  });
}

void backward(const Backward& a, const Sizes& z) {
  with_compute({z.dtype}, [&](auto zero) {
    using C = decltype(zero);
    const C* y_bar = static_cast<const C*>(a.y_bar);
    std::memset(a.t_bar, 0, (size_t)z.B * sizeof(double));
    angles(a.t, z.B, z.N, [&](int64_t b, int64_t i, double angle, double f) {
      const double cos_bar = (double)y_bar[b * z.N + i], sin_bar = (double)y_bar[b * z.N + z.N / 2 + i];
      a.t_bar[b] += f * (std::cos(angle) * sin_bar - std::sin(angle) * cos_bar);
    });
  });
}

}  // namespace rcm::timestep_embed
