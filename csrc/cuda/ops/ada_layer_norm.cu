#include "cuda/rows/layer_rows.cuh"

using namespace rcm;

namespace {

struct Sizes {
  int64_t B, L, D, stride;
  int32_t x_dtype, y_dtype;
};

void check(const Sizes& s) {
  size_at_least(s.B, 0, "B");
  size_at_least(s.L, 0, "L");
  size_at_least(s.D, 1, "D");
  if (s.B > 1) size_at_least(s.stride, s.D, "mod_stride");
}

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
    load_some<V>(scale + i, vec, out);
#pragma unroll
    for (int j = 0; j < V; ++j) out[j] += 1;
  }
  template <int V>
  __device__ void summand(int64_t i, C (&out)[V]) const {
    load_some<V>(shift + i, vec, out);
  }
  template <int V>
  __device__ void tangents(int64_t i, C (&scale_out)[V], C (&shift_out)[V]) const {
#pragma unroll
    for (int j = 0; j < V; ++j) scale_out[j] = shift_out[j] = 0;
    if (scale_dot) load_some<V>(scale_dot + i, vec, scale_out);
    if (shift_dot) load_some<V>(shift_dot + i, vec, shift_out);
  }
};

template <class C>
Modulation<C> modulation(const void* shift, const void* scale, const void* shift_dot, const void* scale_dot, const Sizes& z) {
  auto c = [](const void* p) { return static_cast<const C*>(p); };
  bool vec = z.B == 1 || aligned(reinterpret_cast<const void*>(z.stride * (int64_t)sizeof(C)), 16);
  for (const void* p : {shift, scale, shift_dot, scale_dot}) vec = vec && aligned(p, 16);
  return {c(shift), c(scale), c(shift_dot), c(scale_dot), z.L, z.stride, vec};
}

void forward(const void* x, const void* shift, const void* scale, const void* x_dot, const void* shift_dot, const void* scale_dot, void* y, void* y_dot,
             void* mean, void* rstd, double eps, const Sizes& z) {
  need(x, "x");
  need(shift, "shift");
  need(scale, "scale");
  need(y, "y");
  need(mean, "mean");
  need(rstd, "rstd");
  check(z);
  with_dtypes(z.x_dtype, z.y_dtype, "x_dtype, y_dtype", [&](auto x_type, auto y_type) {
    using X = decltype(x_type);
    using Y = decltype(y_type);
    using C = compute_t<X>;
    const int64_t rows = z.B * z.L;
    if (rows == 0) return;
    const auto mod = modulation<C>(shift, scale, shift_dot, scale_dot, z);
    const X *in = static_cast<const X*>(x), *dot = static_cast<const X*>(x_dot);
    Y *out = static_cast<Y*>(y), *out_dot = static_cast<Y*>(y_dot);
    C *m = static_cast<C*>(mean), *s = static_cast<C*>(rstd);
    if (y_dot) layer_forward<true>(in, dot, mod, out, out_dot, m, s, rows, z.D, eps);
    else layer_forward<false>(in, dot, mod, out, out_dot, m, s, rows, z.D, eps);
  });
}

}  // namespace

rcm_status rcm_ada_layer_norm_fwd(const void* x, const void* shift, const void* scale, void* y, void* mean, void* rstd, int64_t B, int64_t L, int64_t D,
                                  int64_t mod_stride, double eps, int32_t x_dtype, int32_t y_dtype) {
  return gpu_call("ada_layer_norm_fwd",
                  [&] { forward(x, shift, scale, nullptr, nullptr, nullptr, y, nullptr, mean, rstd, eps, {B, L, D, mod_stride, x_dtype, y_dtype}); });
}

rcm_status rcm_ada_layer_norm_jvp(const void* x, const void* shift, const void* scale, const void* x_dot, const void* shift_dot, const void* scale_dot,
                                  void* y, void* y_dot, void* mean, void* rstd, int64_t B, int64_t L, int64_t D, int64_t mod_stride, double eps,
                                  int32_t x_dtype, int32_t y_dtype) {
  return gpu_call("ada_layer_norm_jvp", [&] {
    need(y_dot, "y_dot");
    forward(x, shift, scale, x_dot, shift_dot, scale_dot, y, y_dot, mean, rstd, eps, {B, L, D, mod_stride, x_dtype, y_dtype});
  });
}

rcm_status rcm_ada_layer_norm_vjp(const void* x, const void* scale, const void* mean, const void* rstd, const void* y_bar, void* x_bar, void* shift_bar,
                                  void* scale_bar, int64_t B, int64_t L, int64_t D, int64_t mod_stride, int32_t x_dtype, int32_t y_dtype) {
  return gpu_call("ada_layer_norm_vjp", [&] {
    need(x, "x");
    need(scale, "scale");
    need(mean, "mean");
    need(rstd, "rstd");
    need(y_bar, "y_bar");
    const Sizes z{B, L, D, mod_stride, x_dtype, y_dtype};
    check(z);
    with_dtypes(x_dtype, y_dtype, "x_dtype, y_dtype", [&](auto x_type, auto y_type) {
      using X = decltype(x_type);
      using Y = decltype(y_type);
      using C = compute_t<X>;
      if (B == 0 || L == 0) return;
      layer_backward(static_cast<const X*>(x), static_cast<const Y*>(y_bar), modulation<C>(nullptr, scale, nullptr, nullptr, z),
                     static_cast<const C*>(mean), static_cast<const C*>(rstd), static_cast<X*>(x_bar), static_cast<C*>(scale_bar),
                     static_cast<C*>(shift_bar), B, L, D, mod_stride);
    });
  });
}
