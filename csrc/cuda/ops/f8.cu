// f8_e4m3 with one scale per tensor; no derivative.
#include "shared/ops/f8.h"

#include "elementwise.cuh"

namespace rcm::f8 {
namespace {

template <class S>
struct EncodeOp {
  const S* src;
  uint8_t* dst;
  float scale;

  template <int V>
  struct Held {
    Pack<S, V> v;
  };
  template <int V>
  __device__ void load(int64_t i, Held<V>& h) const {
    h.v = fetch<V>(src + i);
  }
  __device__ Nothing sample(int64_t) const { return {}; }
  template <int V>
  __device__ void finish(Nothing, int64_t i, const Held<V>& h) const {
    Pack<uint8_t, V> out;
#pragma unroll
    for (int j = 0; j < V; ++j) out.v[j] = f8_encode(__fdiv_rn((float)load_as(h.v.v[j]), scale));
    *reinterpret_cast<Pack<uint8_t, V>*>(dst + i) = out;
  }
};

template <class D>
struct DecodeOp {
  const uint8_t* src;
  D* dst;
  float scale;

  template <int V>
  struct Held {
    Pack<uint8_t, V> v;
  };
  template <int V>
  __device__ void load(int64_t i, Held<V>& h) const {
    h.v = fetch<V>(src + i);
  }
  __device__ Nothing sample(int64_t) const { return {}; }
  template <int V>
  __device__ void finish(Nothing, int64_t i, const Held<V>& h) const {
    float out[V];
#pragma unroll
    for (int j = 0; j < V; ++j) out[j] = __fmul_rn(f8_decode(h.v.v[j]), scale);
    store_pack<V>(dst + i, out);
  }
};

}  // namespace

void encode(const Encode& a) {
  with_dtype(a.dtype, "src_dtype", [&](auto s) {
    using S = decltype(s);
    constexpr int V = kPack<S>;
    const EncodeOp<S> op{static_cast<const S*>(a.values), static_cast<uint8_t*>(a.codes), a.scale};
    map<V, 4>(op, 1, a.n, pack_aligned<V, S>({a.values}) && pack_aligned<V, uint8_t>({a.codes}));
  });
}

void decode(const Decode& a) {
  with_dtype(a.dtype, "dst_dtype", [&](auto d) {
    using D = decltype(d);
    constexpr int V = kPack<D>;
    const DecodeOp<D> op{static_cast<const uint8_t*>(a.codes), static_cast<D*>(a.values), a.scale};
    map<V, 4>(op, 1, a.n, pack_aligned<V, uint8_t>({a.codes}) && pack_aligned<V, D>({a.values}));
  });
}

}  // namespace rcm::f8
