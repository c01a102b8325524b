// Ops of the text encoder without derivative: embedding, relative_bias, gelu_gate.
#include "shared/ops/text_encoder.h"

#include "cuda/ops/elementwise.cuh"

namespace rcm::text_encoder {
namespace {

// The type that values pass through between two storage types of any kind.
template <class A, class Z>
using joint_t = std::conditional_t<std::is_same<A, double>::value && std::is_same<Z, double>::value, double, float>;

template <class T, class Y>
__global__ void embedding_kernel(const T* table, const int32_t* ids, Y* y, int64_t n, int64_t V, int64_t D) {
  await_queued();
  using C = joint_t<T, Y>;
  const int64_t i = blockIdx.x;
  const int32_t id = ids[i];
  const bool known = id >= 0 && id < V;
  for (int64_t d = threadIdx.x; d < D; d += blockDim.x)
    y[i * D + d] = store_as<Y>(known ? (C)load_as(table[id * D + d]) : (C)NAN);
}

template <class T, class Y>
__global__ void relative_bias_kernel(const T* table, const int32_t* bucket, Y* bias, int64_t n, int64_t V, int64_t H) {
  await_queued();
  using C = joint_t<T, Y>;
  const int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n * H) return;
  const int64_t h = i / n;
  const int32_t id = bucket[i % n];
  bias[i] = store_as<Y>(id >= 0 && id < V ? (C)load_as(table[id * H + h]) : (C)NAN);
}

// Calls body(A{}, Z{}) for any two float dtypes; unlike with_dtypes, f64 may be mixed with others.
template <class Body>
void any_pair(int32_t a, int32_t b, Body&& body) {
  with_dtype(a, "table_dtype",
             [&](auto first) { with_dtype(b, "y_dtype", [&](auto second) { body(first, second); }); });
}

__device__ inline float gelu(float x) {
  return 0.5f * x * (1 + tanhf(0.7978845608028654f * (x + 0.044715f * x * x * x)));
}
__device__ inline double gelu(double x) {
  return 0.5 * x * (1 + tanh(0.7978845608028654 * (x + 0.044715 * x * x * x)));
}

template <class T, class Y>
struct GeluGateOp {
  using C = compute_t<T>;
  const T *x, *gate;
  Y* y;

  template <int V>
  struct Held {
    Pack<T, V> x, gate;
  };
  template <int V>
  __device__ void load(int64_t i, Held<V>& h) const {
    h.x = fetch<V>(x + i);
    h.gate = fetch<V>(gate + i);
  }
  __device__ Nothing sample(int64_t) const { return {}; }
  template <int V>
  __device__ void finish(Nothing, int64_t i, const Held<V>& h) const {
    C out[V];
#pragma unroll
    for (int j = 0; j < V; ++j) out[j] = (C)load_as(h.x.v[j]) * gelu((C)load_as(h.gate.v[j]));
    store_pack<V>(y + i, out);
  }
};

}  // namespace

void embedding(const Embedding& a) {
  if (a.n == 0 || a.D == 0) return;
  any_pair(a.table_dtype, a.y_dtype, [&](auto t, auto u) {
    using T = decltype(t);
    using Y = decltype(u);
    const T* table = static_cast<const T*>(a.table);
    queue_kernel(embedding_kernel<T, Y>, grid_size(a.n), 256, 0, table, a.ids, static_cast<Y*>(a.y), a.n, a.V, a.D);
  });
}

void relative_bias(const RelativeBias& a) {
  if (a.n == 0 || a.H == 0) return;
  any_pair(a.table_dtype, a.bias_dtype, [&](auto t, auto u) {
    using T = decltype(t);
    using Y = decltype(u);
    const T* table = static_cast<const T*>(a.table);
    queue_kernel(relative_bias_kernel<T, Y>, grid_size(ceil_div(a.n * a.H, 256)), 256, 0, table, a.bucket,
                 static_cast<Y*>(a.bias), a.n, a.V, a.H);
  });
}

void gelu_gate(const GeluGate& a) {
  with_dtypes(a.dtype, a.y_dtype, "dtype, y_dtype", [&](auto t, auto u) {
    using T = decltype(t);
    using Y = decltype(u);
    constexpr int V = kPack<T, Y>;
    const GeluGateOp<T, Y> op{static_cast<const T*>(a.x), static_cast<const T*>(a.gate), static_cast<Y*>(a.y)};
    map<V, 2>(op, 1, a.n, pack_aligned<V, T>({a.x, a.gate}) && pack_aligned<V, Y>({a.y}));
  });
}

}  // namespace rcm::text_encoder
