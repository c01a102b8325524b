#include "cuda/rows/layer_rows.cuh"
#include "shared/ops/layer_norm.h"

namespace rcm::layer_norm {
namespace {

// w and b of a column, the same for every row (parameters carry no tangent).
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

}  // namespace

void forward(const Forward& a, const Sizes& z) {
  with_dtypes(z.x_dtype, z.y_dtype, "x_dtype, y_dtype", [&](auto x_type, auto y_type) {
    using X = decltype(x_type);
    using Y = decltype(y_type);
    using C = compute_t<X>;
    if (z.M == 0) return;
    const auto mod = affine<C>(a.w, a.b, z.w_dtype);
    const X *x = static_cast<const X*>(a.x), *x_dot = static_cast<const X*>(a.x_dot);
    Y *y = static_cast<Y*>(a.y), *y_dot = static_cast<Y*>(a.y_dot);
    C *mean = static_cast<C*>(a.mean), *rstd = static_cast<C*>(a.rstd);
    if (y_dot) layer_forward<true>(x, x_dot, mod, y, y_dot, mean, rstd, z.M, z.N, a.eps);
    else layer_forward<false>(x, x_dot, mod, y, y_dot, mean, rstd, z.M, z.N, a.eps);
  });
}

void backward(const Backward& a, const Sizes& z) {
  with_dtypes(z.x_dtype, z.y_dtype, "x_dtype, y_dtype", [&](auto x_type, auto y_type) {
    using X = decltype(x_type);
    using Y = decltype(y_type);
    using C = compute_t<X>;
    if (z.M == 0) return;
    layer_backward(static_cast<const X*>(a.x), static_cast<const Y*>(a.y_bar), affine<C>(a.w, nullptr, z.w_dtype),
                   static_cast<const C*>(a.mean), static_cast<const C*>(a.rstd), static_cast<X*>(a.x_bar),
                   static_cast<C*>(a.w_bar), static_cast<C*>(a.b_bar), 1, z.M, z.N, 0);
  });
}

}  // namespace rcm::layer_norm
