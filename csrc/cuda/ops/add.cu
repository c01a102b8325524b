#include "elementwise.cuh"

using namespace rcm;

namespace {

template <class T, bool Jvp>
struct Add {
  const T *a, *b, *a_dot, *b_dot;
  T *y, *y_dot;

  template <int V>
  struct Held {
    Pack<T, V> a, b, a_dot, b_dot;
  };
  template <int V>
  __device__ void load(int64_t i, Held<V>& h) const {
    h.a = fetch<V>(a + i);
    h.b = fetch<V>(b + i);
    if constexpr (Jvp) {
      h.a_dot = fetch_some<V>(a_dot, i);
      h.b_dot = fetch_some<V>(b_dot, i);
    }
  }
  __device__ Nothing sample(int64_t) const { return {}; }
  template <int V>
  __device__ void finish(Nothing, int64_t i, const Held<V>& h) const {
    compute_t<T> out[V];
#pragma unroll
    for (int j = 0; j < V; ++j) out[j] = load_as(h.a.v[j]) + load_as(h.b.v[j]);
    store_pack<V>(y + i, out);
    if constexpr (Jvp) {
#pragma unroll
      for (int j = 0; j < V; ++j) out[j] = load_as(h.a_dot.v[j]) + load_as(h.b_dot.v[j]);
      store_pack<V>(y_dot + i, out);
    }
  }
};

template <bool Jvp>
void run(const void* a, const void* b, const void* a_dot, const void* b_dot, void* y, void* y_dot, int64_t n, int32_t dtype) {
  with_dtype(dtype, "dtype", [&](auto zero) {
    using T = decltype(zero);
    constexpr int V = kPack<T>;
    const Add<T, Jvp> op{static_cast<const T*>(a),     static_cast<const T*>(b), static_cast<const T*>(a_dot),
                         static_cast<const T*>(b_dot), static_cast<T*>(y),       static_cast<T*>(y_dot)};
    map<V, 2>(op, 1, n, pack_aligned<V, T>({a, b, a_dot, b_dot, y, y_dot}));
  });
}

}  // namespace

rcm_status rcm_add_fwd(const void* a, const void* b, void* y, int64_t n, int32_t dtype) {
  return gpu_call("add_fwd", [&] {
    need(a, "a");
    need(b, "b");
    need(y, "y");
    size_at_least(n, 0, "n");
    run<false>(a, b, nullptr, nullptr, y, nullptr, n, dtype);
  });
}

rcm_status rcm_add_jvp(const void* a, const void* b, const void* a_dot, const void* b_dot, void* y, void* y_dot, int64_t n, int32_t dtype) {
  return gpu_call("add_jvp", [&] {
    need(a, "a");
    need(b, "b");
    need(y, "y");
    need(y_dot, "y_dot");
    size_at_least(n, 0, "n");
    run<true>(a, b, a_dot, b_dot, y, y_dot, n, dtype);
  });
}

rcm_status rcm_add_vjp(const void* y_bar, void* a_bar, void* b_bar, int64_t n, int32_t dtype) {
  return gpu_call("add_vjp", [&] {
    need(y_bar, "y_bar");
    size_at_least(n, 0, "n");
    same_kind(dtype, dtype == RCM_F64, "dtype");
    for (void* out : {a_bar, b_bar}) {
      if (out == nullptr || out == y_bar || n == 0) continue;
      check(cudaMemcpyAsync(out, y_bar, (size_t)(n * dtype_bytes(dtype)), cudaMemcpyDeviceToDevice, stream()), "copy");
    }
  });
}
