#include "cuda/rows/layer_rows.cuh"

using namespace rcm;

namespace {

// w and b of a column, the same for every row; they have no tangent.
template <class C>
struct Affine {
  const void *w, *b;
  int32_t dtype;
  bool vec;
  static constexpr bool kTangent = false;
  __device__ int64_t row(int64_t) const { return 0; }
  __device__ int64_t end(int64_t) const { return INT64_MAX; }
  template <int V>
  __device__ void factor(int64_t i, C (&out)[V]) const {
    load(w, i, 1, out);
  }
  template <int V>
  __device__ void summand(int64_t i, C (&out)[V]) const {
    load(b, i, 0, out);
  }

 private:
  template <int V>
  __device__ void load(const void* p, int64_t i, C otherwise, C (&out)[V]) const {
    if (p) return load_param<V>(p, i, dtype, vec, out);
#pragma unroll
    for (int j = 0; j < V; ++j) out[j] = otherwise;
  }
};

template <class C>
Affine<C> affine(const void* w, const void* b, int32_t dtype) {
  return {w, b, dtype, aligned(w, 16) && aligned(b, 16)};
}

void forward(const void* x, const void* w, const void* b, const void* x_dot, void* y, void* y_dot, void* mean, void* rstd, int64_t M, int64_t N, double eps,
             int32_t x_dtype, int32_t w_dtype, int32_t y_dtype) {
  need(x, "x");
  need(y, "y");
  need(mean, "mean");
  need(rstd, "rstd");
  size_at_least(M, 0, "M");
  size_at_least(N, 1, "N");
  if (w || b) same_kind(w_dtype, x_dtype == RCM_F64, "w_dtype");
  with_dtypes(x_dtype, y_dtype, "x_dtype, y_dtype", [&](auto x_type, auto y_type) {
    using X = decltype(x_type);
    using Y = decltype(y_type);
    using C = compute_t<X>;
    if (M == 0) return;
    const X *in = static_cast<const X*>(x), *dot = static_cast<const X*>(x_dot);
    Y *out = static_cast<Y*>(y), *out_dot = static_cast<Y*>(y_dot);
    C *m = static_cast<C*>(mean), *s = static_cast<C*>(rstd);
    if (y_dot) layer_forward<true>(in, dot, affine<C>(w, b, w_dtype), out, out_dot, m, s, M, N, eps);
    else layer_forward<false>(in, dot, affine<C>(w, b, w_dtype), out, out_dot, m, s, M, N, eps);
  });
}

}  // namespace

rcm_status rcm_layer_norm_fwd(const void* x, const void* w, const void* b, void* y, void* mean, void* rstd, int64_t M, int64_t N, double eps, int32_t x_dtype,
                              int32_t w_dtype, int32_t y_dtype) {
  return gpu_call("layer_norm_fwd", [&] { forward(x, w, b, nullptr, y, nullptr, mean, rstd, M, N, eps, x_dtype, w_dtype, y_dtype); });
}

rcm_status rcm_layer_norm_jvp(const void* x, const void* w, const void* b, const void* x_dot, void* y, void* y_dot, void* mean, void* rstd, int64_t M,
                              int64_t N, double eps, int32_t x_dtype, int32_t w_dtype, int32_t y_dtype) {
  return gpu_call("layer_norm_jvp", [&] {
    need(x_dot, "x_dot");
    need(y_dot, "y_dot");
    forward(x, w, b, x_dot, y, y_dot, mean, rstd, M, N, eps, x_dtype, w_dtype, y_dtype);
  });
}

rcm_status rcm_layer_norm_vjp(const void* x, const void* w, const void* mean, const void* rstd, const void* y_bar, void* x_bar, void* w_bar, void* b_bar,
                              int64_t M, int64_t N, int32_t x_dtype, int32_t w_dtype, int32_t y_dtype) {
  return gpu_call("layer_norm_vjp", [&] {
    need(x, "x");
    need(mean, "mean");
    need(rstd, "rstd");
    need(y_bar, "y_bar");
    size_at_least(M, 0, "M");
    size_at_least(N, 1, "N");
    if (w) same_kind(w_dtype, x_dtype == RCM_F64, "w_dtype");
    with_dtypes(x_dtype, y_dtype, "x_dtype, y_dtype", [&](auto x_type, auto y_type) {
      using X = decltype(x_type);
      using Y = decltype(y_type);
      using C = compute_t<X>;
      if (M == 0) return;
      layer_backward(static_cast<const X*>(x), static_cast<const Y*>(y_bar), affine<C>(w, nullptr, w_dtype), static_cast<const C*>(mean),
                     static_cast<const C*>(rstd), static_cast<X*>(x_bar), static_cast<C*>(w_bar), static_cast<C*>(b_bar), 1, M, N, 0);
    });
  });
}
