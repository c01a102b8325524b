#include "elementwise.cuh"
#include "shared/ops/add.h"

namespace rcm::add {
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
      h.a_dot = fetch_or_zero<V>(a_dot, i);
      h.b_dot = fetch_or_zero<V>(b_dot, i);
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
void run(const Forward& a, const Sizes& z) {
  with_dtype(z.dtype, "dtype", [&](auto zero) {
    using T = decltype(zero);
    constexpr int V = kPack<T>;
    const auto in = [](const void* p) { return static_cast<const T*>(p); };
    const Add<T, Jvp> op{in(a.a), in(a.b), in(a.a_dot), in(a.b_dot), static_cast<T*>(a.y), static_cast<T*>(a.y_dot)};
    map<V, 2>(op, 1, z.n, pack_aligned<V, T>({a.a, a.b, a.a_dot, a.b_dot, a.y, a.y_dot}));
  });
}

}  // namespace

void forward(const Forward& a, const Sizes& z) {
  if (a.y_dot) run<true>(a, z);
  else run<false>(a, z);
}

void backward(const Backward& a, const Sizes& z) {
  const size_t bytes = (size_t)(z.n * dtype_bytes(z.dtype));
  for (void* out : {a.a_bar, a.b_bar}) {
    if (out == nullptr || out == a.y_bar || z.n == 0) continue;
    cuda_check(cudaMemcpyAsync(out, a.y_bar, bytes, cudaMemcpyDeviceToDevice, stream()), "copy");
  }
}

}  // namespace rcm::add
