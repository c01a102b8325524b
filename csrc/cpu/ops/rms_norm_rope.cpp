#include "norm.h"
#include "shared/ops/rms_norm_rope.h"

namespace rcm::rms_norm_rope {
namespace {

// Rotates every head of a row in place; sign -1 rotates back (the transpose).
template <class C>
void rotate(C* v, const C* cos, const C* sin, const Sizes& z, C sign) {
  const int64_t half = z.K / 2;
  for (int64_t h = 0; h < z.D; h += z.K) {
    C* u = v + h;
    if (z.rope == 1) {
#pragma omp simd
      for (int64_t i = 0; i < half; ++i) {
        const C a = u[2 * i], b = u[2 * i + 1], s = sign * sin[i];
        u[2 * i] = a * cos[i] - b * s;
        u[2 * i + 1] = a * s + b * cos[i];
      }
    } else {
#pragma omp simd
      for (int64_t i = 0; i < half; ++i) {
        const C a = u[i], b = u[i + half], s = sign * sin[i];
        u[i] = a * cos[i] - b * s;
        u[i + half] = a * s + b * cos[i];
      }
    }
  }
}

template <class C>
void run(const Forward& a, const Sizes& z) {
  const int64_t D = z.D, G = z.group, groups = D / G;
  const C *cos = static_cast<const C*>(a.cos), *sin = static_cast<const C*>(a.sin);
  const C* w = load_row<C>(a.w, z.w_dtype, 0, G, scratch<C>(0, G));
  C* rstd = static_cast<C*>(a.rstd);
  parallel_for(z.B * z.L, 32, [&](int64_t from, int64_t to, int) {
    for (int64_t r = from; r < to; ++r) {
      const int64_t l = r % z.L;
      const C *c = cos ? cos + l * (z.K / 2) : nullptr, *s = sin ? sin + l * (z.K / 2) : nullptr;
      const C* in = load_row<C>(a.x, z.x_dtype, r * D, D, scratch<C>(2, D));
      const C* dot = a.y_dot ? load_row<C>(a.x_dot, z.x_dtype, r * D, D, scratch<C>(4, D)) : nullptr;
      C* out = row_target<C>(a.y, z.y_dtype, r * D, scratch<C>(3, D));
      C* out_dot = a.y_dot ? row_target<C>(a.y_dot, z.y_dtype, r * D, scratch<C>(5, D)) : nullptr;
      for (int64_t g = 0; g < groups; ++g) {
        const C* u = in + g * G;
        double sum = 0;
#pragma omp simd reduction(+ : sum)
        for (int64_t i = 0; i < G; ++i) sum += (double)u[i] * (double)u[i];
        const C q = (C)(1 / std::sqrt(sum / (double)G + a.eps));
        rstd[r * groups + g] = q;
        C* o = out + g * G;
#pragma omp simd
        for (int64_t i = 0; i < G; ++i) o[i] = u[i] * q * w[i];
        if (!a.y_dot) continue;
        const C* d = dot + g * G;
        double cross = 0;
#pragma omp simd reduction(+ : cross)
        for (int64_t i = 0; i < G; ++i) cross += (double)u[i] * (double)d[i];
        const C along_x = (C)(cross / (double)G) * q * q;
        C* od = out_dot + g * G;
#pragma omp simd
        for (int64_t i = 0; i < G; ++i) od[i] = q * w[i] * (d[i] - u[i] * along_x);
      }
      if (z.rope != 0) {
        rotate(out, c, s, z, (C)1);
        if (a.y_dot) rotate(out_dot, c, s, z, (C)1);
      }
      store_row<C>(a.y, z.y_dtype, r * D, D, out);
      if (a.y_dot) store_row<C>(a.y_dot, z.y_dtype, r * D, D, out_dot);
    }
  });
}

template <class C>
void run_backward(const Backward& a, const Sizes& z) {
  const int64_t D = z.D, G = z.group, groups = D / G;
  const C *cos = static_cast<const C*>(a.cos), *sin = static_cast<const C*>(a.sin),
          *rstd = static_cast<const C*>(a.rstd);
  const C* w = load_row<C>(a.w, z.w_dtype, 0, G, scratch<C>(0, G));
  C* w_bar = static_cast<C*>(a.w_bar);
  Partials<C> sums = partials<C>(w_bar ? G : 1);
  parallel_for(z.B * z.L, 32, [&](int64_t from, int64_t to, int part) {
    C *dw = sums.of(part), *u_bar = scratch<C>(6, D);
    for (int64_t r = from; r < to; ++r) {
      const int64_t l = r % z.L;
      const C* in = load_row<C>(a.x, z.x_dtype, r * D, D, scratch<C>(2, D));
      const C* bar = load_row<C>(a.y_bar, z.y_dtype, r * D, D, scratch<C>(4, D));
      std::memcpy(u_bar, bar, (size_t)D * sizeof(C));
      if (z.rope != 0) rotate(u_bar, cos + l * (z.K / 2), sin + l * (z.K / 2), z, (C)-1);
      C* out = a.x_bar ? row_target<C>(a.x_bar, z.x_dtype, r * D, scratch<C>(3, D)) : nullptr;
      for (int64_t g = 0; g < groups; ++g) {
        const C *u = in + g * G, *v = u_bar + g * G;
        const C q = rstd[r * groups + g];
        double cross = 0;
#pragma omp simd reduction(+ : cross)
        for (int64_t i = 0; i < G; ++i) cross += (double)(v[i] * w[i]) * (double)u[i];
        if (w_bar) {
#pragma omp simd
          for (int64_t i = 0; i < G; ++i) dw[i] += v[i] * u[i] * q;
        }
        if (!out) continue;
        const C along_x = (C)(cross / (double)G) * q * q;
        C* o = out + g * G;
#pragma omp simd
        for (int64_t i = 0; i < G; ++i) o[i] = q * (v[i] * w[i] - u[i] * along_x);
      }
      if (out) store_row<C>(a.x_bar, z.x_dtype, r * D, D, out);
    }
  });
  if (w_bar) sums.add_to(w_bar, 0, G);
}

}  // namespace

void forward(const Forward& a, const Sizes& z) {
  with_compute({z.x_dtype, z.w_dtype, z.y_dtype}, [&](auto zero) { run<decltype(zero)>(a, z); });
}

void backward(const Backward& a, const Sizes& z) {
  with_compute({z.x_dtype, z.w_dtype, z.y_dtype}, [&](auto zero) { run_backward<decltype(zero)>(a, z); });
}

}  // namespace rcm::rms_norm_rope
