// Nondifferentiable: f8_e4m3 with one scale.
#include "shared/f8.h"
#include "elementwise.cuh"

using namespace rcm;

namespace {

void scale_in_range(double scale) {
  const float s = (float)scale;
  if (!(s > 0.0f) || s - s != 0.0f) fail(RCM_E_ARG, "scale: want a positive f32, got %g", scale);
}
void dtype_in_range(int32_t dtype, int32_t last, const char* name) {
  if (dtype < RCM_F32 || dtype > last) fail(RCM_E_DTYPE, "%s: code %d cannot go with f8", name, dtype);
}

template <class S>
struct Encode {
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
struct Decode {
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

rcm_status rcm_f8_encode(const void* src, void* dst, int64_t n, double scale, int32_t src_dtype) {
  return gpu_call("f8_encode", [&] {
    need(src, "src");
    need(dst, "dst");
    size_at_least(n, 0, "n");
    scale_in_range(scale);
    dtype_in_range(src_dtype, RCM_F16, "src_dtype");
    with_dtype(src_dtype, "src_dtype", [&](auto s) {
      using S = decltype(s);
      constexpr int V = kPack<S>;
      map<V, 4>(Encode<S>{static_cast<const S*>(src), static_cast<uint8_t*>(dst), (float)scale}, 1, n, pack_aligned<V, S>({src}) && pack_aligned<V, uint8_t>({dst}));
    });
  });
}

rcm_status rcm_f8_decode(const void* src, void* dst, int64_t n, double scale, int32_t dst_dtype) {
  return gpu_call("f8_decode", [&] {
    need(src, "src");
    need(dst, "dst");
    size_at_least(n, 0, "n");
    scale_in_range(scale);
    dtype_in_range(dst_dtype, RCM_F64, "dst_dtype");
    with_dtype(dst_dtype, "dst_dtype", [&](auto d) {
      using D = decltype(d);
      constexpr int V = kPack<D>;
      map<V, 4>(Decode<D>{static_cast<const uint8_t*>(src), static_cast<D*>(dst), (float)scale}, 1, n, pack_aligned<V, uint8_t>({src}) && pack_aligned<V, D>({dst}));
    });
  });
}
