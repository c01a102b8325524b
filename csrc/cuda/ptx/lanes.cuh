// Pairs of 16-bit floats in one register, and exchanges among the four lanes of a quad.
#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>
#include <type_traits>

namespace rcm {
namespace ptx {

// Two values rounded into one register, `low` first in memory.
template <class T>
__device__ inline uint32_t pack_pair(float low, float high) {
  if constexpr (std::is_same<T, __nv_bfloat16>::value) {
    const __nv_bfloat162 v = __floats2bfloat162_rn(low, high);
    return *reinterpret_cast<const uint32_t*>(&v);
  } else {
    const __half2 v = __floats2half2_rn(low, high);
    return *reinterpret_cast<const uint32_t*>(&v);
  }
}
template <class T>
__device__ inline float2 unpack_pair(uint32_t pair) {
  if constexpr (std::is_same<T, __nv_bfloat16>::value) {
    return {__uint_as_float(pair << 16), __uint_as_float(pair & 0xffff0000u)};
  } else {
    return __half22float2(*reinterpret_cast<const __half2*>(&pair));
  }
}
template <class T>
__device__ inline float sum_pair(uint32_t pair) {
  const float2 v = unpack_pair<T>(pair);
  return v.x + v.y;
}

__device__ inline float quad_sum(float v) {
  v += __shfl_xor_sync(0xffffffffu, v, 1);
  return v + __shfl_xor_sync(0xffffffffu, v, 2);
}
__device__ inline float quad_max(float v) {
  v = fmaxf(v, __shfl_xor_sync(0xffffffffu, v, 1));
  return fmaxf(v, __shfl_xor_sync(0xffffffffu, v, 2));
}

// Transposes four words held by each of the four lanes of a quad: word i of lane q becomes word q of lane i.
__device__ inline void quad_transpose(uint32_t (&u)[4], int q) {
  const bool odd = q & 1, high = q & 2;
  uint32_t a = __shfl_xor_sync(0xffffffffu, odd ? u[0] : u[1], 1),
           b = __shfl_xor_sync(0xffffffffu, odd ? u[2] : u[3], 1);
  if (odd) u[0] = a, u[2] = b;
  else u[1] = a, u[3] = b;
  a = __shfl_xor_sync(0xffffffffu, high ? u[0] : u[2], 2), b = __shfl_xor_sync(0xffffffffu, high ? u[1] : u[3], 2);
  if (high) u[0] = a, u[1] = b;
  else u[2] = a, u[3] = b;
}

}  // namespace ptx
}  // namespace rcm
