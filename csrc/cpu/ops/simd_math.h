// Element functions that the compiler can vectorise inside `omp simd` loops.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>

#include "shared/ops/activation.h"

namespace rcm {

// exp by 2^k * p(r), |r| <= ln2/2; relative error below 2e-7; 0 below -87.3, inf above 88.7, NaN passes.
inline float vexp(float x) {
  float c = x < -87.3f ? -87.3f : x;
  c = c > 88.72f ? 88.72f : c;
  float k = c * 1.44269504088896341f + 12582912.0f;
  k -= 12582912.0f;
  float r = c - k * 0.693359375f;
  r = r + k * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  int32_t bits = ((int32_t)k + 126) << 23;  // 2^(k-1), so that k = 128 still fits
  float scale;
  std::memcpy(&scale, &bits, 4);
  float y = p * scale * 2.0f;
  y = x < -87.3f ? 0.0f : y;
  y = x > 88.72f ? INFINITY : y;
  return x != x ? x : y;
}
inline double vexp(double x) { return std::exp(x); }

inline float vsigmoid(float x) { return 1.0f / (1.0f + vexp(-x)); }
inline double vsigmoid(double x) { return 1.0 / (1.0 + std::exp(-x)); }

// tanh(x) = 1 - 2 / (exp(2x) + 1); near 0 an odd polynomial keeps the relative error small.
inline float vtanh(float x) {
  float big = 1.0f - 2.0f / (vexp(2.0f * x) + 1.0f);
  float s = x * x;
  float small = x * (1.0f + s * (-0.333333333f + s * (0.133333333f + s * (-0.0539682540f + s * 0.0218694885f))));
  return s < 0.0625f ? small : big;
}
inline double vtanh(double x) { return std::tanh(x); }

using activation::kGeluErf;
using activation::kGeluTanh;
using activation::kSilu;

// Value and derivative of an activation at x.
template <int K, class C>
inline void activate(C x, C& y, C& slope) {
  if (K == kGeluTanh) {
    const C a = (C)0.7978845608028654, b = (C)0.044715;
    C t = vtanh(a * (x + b * x * x * x));
    y = (C)0.5 * x * (1 + t);
    slope = (C)0.5 * (1 + t) + (C)0.5 * x * (1 - t * t) * a * (1 + 3 * b * x * x);
  } else if (K == kGeluErf) {
    C phi = (C)0.5 * (1 + std::erf(x * (C)0.7071067811865476));
    y = x * phi;
    slope = phi + x * (C)0.3989422804014327 * std::exp(-(C)0.5 * x * x);
  } else if (K == kSilu) {
    C s = vsigmoid(x);
    y = x * s;
    slope = s * (1 + x * (1 - s));
  } else {
    y = vtanh(x);
    slope = 1 - y * y;
  }
}

// y = f(h), with the tangent, and the cotangent of h. y may be h.
template <int K, class C>
inline void activate_row(const C* h, C* y, int64_t n) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    C v, s;
    activate<K>(h[i], v, s);
    y[i] = v;
  }
}
template <int K, class C>
inline void activate_row_dot(const C* h, const C* dot, C* y, C* y_dot, int64_t n) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    C v, s;
    activate<K>(h[i], v, s);
    y[i] = v;
    y_dot[i] = s * dot[i];
  }
}
template <int K, class C>
inline void activate_row_bar(const C* h, const C* y_bar, C* h_bar, int64_t n) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    C v, s;
    activate<K>(h[i], v, s);
    h_bar[i] = s * y_bar[i];
  }
}

}  // namespace rcm
