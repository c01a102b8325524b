#include "cuda/rows/layer_rows.cuh"
#include "shared/ops/ada_layer_norm.h"

namespace rcm::ada_layer_norm {
namespace {

// 1 + scale and shift of a row's sample, and their tangents (null: zero).
template <class C>
struct Modulation {
  const C *shift, *scale, *shift_dot, *scale_dot;
  int64_t L, stride;
  bool vec;
  static constexpr bool kTangent = true;
  __device__ int64_t row(int64_t r) const { return r / L * stride; }
  // The first row after r with other parameters.
  __device__ int64_t end(int64_t r) const { return (r / L + 1) * L; }
  template <int V>
  __device__ void factor(int64_t i, C (&out)[V]) const {
    load_values<V>(scale + i, vec, out);
#pragma unroll
    for (int j = 0; j < V; ++j) out[j] += 1;
  }
  template <int V>
  __device__ void summand(int64_t i, C (&out)[V]) const {
    load_values<V>(shift + i, vec, out);
  }
  template <int V>
  __device__ void tangents(int64_t i, C (&scale_out)[V], C (&shift_out)[V]) const {
#pragma unroll
    for (int j = 0; j < V; ++j) scale_out[j] = shift_out[j] = 0;
    if (scale_dot) load_values<V>(scale_dot + i, vec, scale_out);
    if (shift_dot) load_values<V>(shift_dot + i, vec, shift_out);
  }
};

template <class C>
Modulation<C> modulation(const void* shift, const void* scale, const void* shift_dot, const void* scale_dot,
                         const Sizes& z) {
  auto c = [](const void* p) { return static_cast<const C*>(p); };
  bool vec = z.B == 1 || aligned(reinterpret_cast<const void*>(z.stride * (int64_t)sizeof(C)), 16);
  for (const void* p : {shift, scale, shift_dot, scale_dot}) vec = vec && aligned(p, 16);
  return {c(shift), c(scale), c(shift_dot), c(scale_dot), z.L, z.stride, vec};
}

}  // namespace

void forward(const Forward& a, const Sizes& z) {
  with_dtypes(z.x_dtype, z.y_dtype, "x_dtype, y_dtype", [&](auto x_type, auto y_type) {
    using X = decltype(x_type);
    using Y = decltype(y_type);
    using C = compute_t<X>;
    const int64_t rows = z.B * z.L;
    if (rows == 0) return;
    const auto mod = modulation<C>(a.shift, a.scale, a.shift_dot, a.scale_dot, z);
    const X *x = static_cast<const X*>(a.x), *x_dot = static_cast<const X*>(a.x_dot);
    Y *y = static_cast<Y*>(a.y), *y_dot = static_cast<Y*>(a.y_dot);
    C *mean = static_cast<C*>(a.mean), *rstd = static_cast<C*>(a.rstd);
    if (y_dot) layer_forward<true>(x, x_dot, mod, y, y_dot, mean, rstd, rows, z.D, a.eps);
    else layer_forward<false>(x, x_dot, mod, y, y_dot, mean, rstd, rows, z.D, a.eps);
  });
}

void backward(const Backward& a, const Sizes& z) {
  with_dtypes(z.x_dtype, z.y_dtype, "x_dtype, y_dtype", [&](auto x_type, auto y_type) {
    using X = decltype(x_type);
    using Y = decltype(y_type);
    using C = compute_t<X>;
    if (z.B == 0 || z.L == 0) return;
    layer_backward(static_cast<const X*>(a.x), static_cast<const Y*>(a.y_bar),
                   modulation<C>(nullptr, a.scale, nullptr, nullptr, z), static_cast<const C*>(a.mean),
                   static_cast<const C*>(a.rstd), static_cast<X*>(a.x_bar), static_cast<C*>(a.scale_bar),
                   static_cast<C*>(a.shift_bar), z.B, z.L, z.D, z.stride);
  });
}

}  // namespace rcm::ada_layer_norm
