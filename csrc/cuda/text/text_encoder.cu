// Nondifferentiable ops of the text encoder: embedding, relative_bias, gelu_gate.
#include "cuda/ops/elementwise.cuh"

using namespace rcm;

namespace {

void float_dtype(int32_t dtype, const char* name) {
  if (dtype < RCM_F32 || dtype > RCM_F64) fail(RCM_E_DTYPE, "%s: want f32, bf16, f16 or f64, got code %d", name, dtype);
}

// What two types that need not be of one kind are moved in.
template <class A, class Z>
using joint_t = typename std::conditional<std::is_same<A, double>::value && std::is_same<Z, double>::value, double, float>::type;

template <class T, class Y>
__global__ void embedding_kernel(const T* table, const int32_t* ids, Y* y, int64_t n, int64_t V, int64_t D) {
  await_queued();
  using C = joint_t<T, Y>;
  const int64_t i = blockIdx.x;
  const int32_t id = ids[i];
  const bool known = id >= 0 && id < V;
  for (int64_t d = threadIdx.x; d < D; d += blockDim.x) y[i * D + d] = store_as<Y>(known ? (C)load_as(table[id * D + d]) : (C)NAN);
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

// Calls body with both storage types, whatever their kinds.
template <class Body>
void any_pair(int32_t a, int32_t b, Body&& body) {
  with_dtype(a, "table_dtype", [&](auto first) { with_dtype(b, "y_dtype", [&](auto second) { body(first, second); }); });
}

__device__ inline float gelu(float x) { return 0.5f * x * (1 + tanhf(0.7978845608028654f * (x + 0.044715f * x * x * x))); }
__device__ inline double gelu(double x) { return 0.5 * x * (1 + tanh(0.7978845608028654 * (x + 0.044715 * x * x * x))); }

template <class T, class Y>
struct GeluGate {
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

rcm_status rcm_embedding(const void* table, const int32_t* ids, void* y, int64_t n, int64_t V, int64_t D, int32_t table_dtype, int32_t y_dtype) {
  return gpu_call("embedding", [&] {
    need(table, "table");
    need(ids, "ids");
    need(y, "y");
    size_at_least(n, 0, "n");
    size_at_least(V, 0, "V");
    size_at_least(D, 0, "D");
    float_dtype(table_dtype, "table_dtype");
    float_dtype(y_dtype, "y_dtype");
    if (n == 0 || D == 0) return;
    any_pair(table_dtype, y_dtype, [&](auto t, auto u) {
      using T = decltype(t);
      using Y = decltype(u);
      queue_kernel(embedding_kernel<T, Y>, grid_size(n), 256, 0, static_cast<const T*>(table), ids, static_cast<Y*>(y), n, V, D);
    });
  });
}

rcm_status rcm_relative_bias(const void* table, const int32_t* bucket, void* bias, int64_t n, int64_t V, int64_t H, int32_t table_dtype,
                             int32_t bias_dtype) {
  return gpu_call("relative_bias", [&] {
    need(table, "table");
    need(bucket, "bucket");
    need(bias, "bias");
    size_at_least(n, 0, "n");
    size_at_least(V, 0, "V");
    size_at_least(H, 0, "H");
    float_dtype(table_dtype, "table_dtype");
    float_dtype(bias_dtype, "bias_dtype");
    if (n == 0 || H == 0) return;
    any_pair(table_dtype, bias_dtype, [&](auto t, auto u) {
      using T = decltype(t);
      using Y = decltype(u);
      queue_kernel(relative_bias_kernel<T, Y>, grid_size(ceil_div(n * H, 256)), 256, 0, static_cast<const T*>(table), bucket, static_cast<Y*>(bias), n, V, H);
    });
  });
}

rcm_status rcm_gelu_gate(const void* x, const void* gate, void* y, int64_t n, int32_t dtype, int32_t y_dtype) {
  return gpu_call("gelu_gate", [&] {
    need(x, "x");
    need(gate, "gate");
    need(y, "y");
    size_at_least(n, 0, "n");
    with_dtypes(dtype, y_dtype, "dtype, y_dtype", [&](auto t, auto u) {
      using T = decltype(t);
      using Y = decltype(u);
      constexpr int V = kPack<T, Y>;
      const GeluGate<T, Y> op{static_cast<const T*>(x), static_cast<const T*>(gate), static_cast<Y*>(y)};
      map<V, 2>(op, 1, n, pack_aligned<V, T>({x, gate}) && pack_aligned<V, Y>({y}));
    });
  });
}
