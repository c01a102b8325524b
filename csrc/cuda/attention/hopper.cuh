// What the sm_90a attention kernels share: tensor maps, the tile ring, the softmax row state.
#pragma once
#include "cuda/ptx/hopper.cuh"
#include "cuda/ptx/wgmma.cuh"
#include "attention.cuh"

// Kernel bodies exist for sm_90a (and for the host's pass over the text); other targets get empty ones that are never launched.
#if !defined(__CUDA_ARCH__) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define RCM_HOPPER_CODE 1
#else
#define RCM_HOPPER_CODE 0
#endif

namespace rcm {

constexpr int kRows = 64;  // query rows of a warpgroup

// [B, L, H, W] with the given (batch, token, head) strides, seen as boxes of 64 columns by `rows` tokens with 128-byte swizzle.
// False when the copy engine cannot describe it (alignment, stride 0).
bool tensor_map(CUtensorMap* map, const void* data, int32_t dtype, int64_t B, int64_t L, int64_t H, int64_t W, const int64_t* strides, int rows);

template <class T>
__device__ inline uint32_t pack_pair(float low, float high) {
  if constexpr (std::is_same<T, bf16>::value) {
    const __nv_bfloat162 v = __floats2bfloat162_rn(low, high);
    return *reinterpret_cast<const uint32_t*>(&v);
  } else {
    const __half2 v = __floats2half2_rn(low, high);
    return *reinterpret_cast<const uint32_t*>(&v);
  }
}
template <class T>
__device__ inline float2 unpack_pair(uint32_t v) {
  if constexpr (std::is_same<T, bf16>::value) return {__uint_as_float(v << 16), __uint_as_float(v & 0xffff0000u)};
  else return __half22float2(*reinterpret_cast<const __half2*>(&v));
}

__device__ inline float quad_max(float v) {
  v = fmaxf(v, __shfl_xor_sync(0xffffffffu, v, 1));
  return fmaxf(v, __shfl_xor_sync(0xffffffffu, v, 2));
}
__device__ inline float quad_sum(float v) {
  v += __shfl_xor_sync(0xffffffffu, v, 1);
  return v + __shfl_xor_sync(0xffffffffu, v, 2);
}

// Scores of columns from `left` on count as minus infinity (accumulator layout below).
template <int Registers>
__device__ inline void mask_columns(float (&s)[Registers], int left, int lane) {
#pragma unroll
  for (int j = 0; j < Registers / 4; ++j) {
    const int column = 8 * j + lane % 4 * 2;
    if (column >= left) s[4 * j] = s[4 * j + 2] = -INFINITY;
    if (column + 1 >= left) s[4 * j + 1] = s[4 * j + 3] = -INFINITY;
  }
}

// Accumulator layout of a warpgroup tile: thread t holds rows t/4 and t/4 + 8 of its warp's 16, columns 8j + 2(t%4) + {0,1} in
// d[4j..4j+1] and d[4j+2..4j+3]. Packed in pairs that is the A operand of the next multiply.

constexpr float kSlack = 4;  // f16 keeps room for P.S'

// The softmax of the two rows a thread holds a part of, over keys that come tile by tile. Sums are relative to `top`, which may lag the true
// maximum a little: rescaling waits until a weight would pass 2^kSlack.
struct SoftmaxRows {
  float top0, top1, sum0, sum1, shrink0 = 1, shrink1 = 1;
  bool shrinks = false;  // for the whole warp: what was summed before this tile is to be multiplied by shrink0, shrink1

  __device__ void start() {
    top0 = top1 = -INFINITY;
    sum0 = sum1 = 0;
  }
  // Scores of a tile to weights; to_log2: the scale of scores over ln 2.
  template <int Registers>
  __device__ void weigh(float (&s)[Registers], float to_log2) {
    float high0 = top0, high1 = top1;
#pragma unroll
    for (int j = 0; j < Registers / 4; ++j) {
      high0 = fmaxf(high0, fmaxf(s[4 * j], s[4 * j + 1]));
      high1 = fmaxf(high1, fmaxf(s[4 * j + 2], s[4 * j + 3]));
    }
    high0 = quad_max(high0);
    high1 = quad_max(high1);
    shrinks = __any_sync(0xffffffffu, (high0 - top0) * to_log2 > kSlack || (high1 - top1) * to_log2 > kSlack);
    if (shrinks) {
      shrink0 = ptx::exp2_fast((top0 - high0) * to_log2), shrink1 = ptx::exp2_fast((top1 - high1) * to_log2);
      top0 = high0, top1 = high1;
      sum0 *= shrink0, sum1 *= shrink1;
    }
    const float base0 = top0 * to_log2, base1 = top1 * to_log2;
#pragma unroll
    for (int j = 0; j < Registers / 4; ++j) {
      s[4 * j] = ptx::exp2_fast(fmaf(s[4 * j], to_log2, -base0)), s[4 * j + 1] = ptx::exp2_fast(fmaf(s[4 * j + 1], to_log2, -base0));
      s[4 * j + 2] = ptx::exp2_fast(fmaf(s[4 * j + 2], to_log2, -base1)), s[4 * j + 3] = ptx::exp2_fast(fmaf(s[4 * j + 3], to_log2, -base1));
      sum0 += s[4 * j] + s[4 * j + 1];
      sum1 += s[4 * j + 2] + s[4 * j + 3];
    }
  }
};

// threadIdx.x, asked for anew: what follows from it is not kept in registers through the loop before.
__device__ inline int thread_again() {
  int thread;
  asm volatile("mov.u32 %0, %%tid.x;" : "=r"(thread));
  return thread;
}

// Writes a [64, W] tile into swizzled shared memory, [W/64][rows of the buffer][64]; value(i): what belongs to accumulator i.
template <class T, int W, class Value>
__device__ inline void stage_values(const Value& value, char* buffer, int block_bytes) {
  const int thread = thread_again(), warp = thread / 32 % 4, lane = thread % 32, row = warp * 16 + lane / 4;
#pragma unroll
  for (int j = 0; j < W / 8; ++j) {
    char* base = buffer + (j / 8) * block_bytes + ((j % 8 ^ row % 8) * 16) + lane % 4 * 4;  // row + 8 has the same row % 8
    *reinterpret_cast<uint32_t*>(base + row * 128) = pack_pair<T>(value(4 * j), value(4 * j + 1));
    *reinterpret_cast<uint32_t*>(base + (row + 8) * 128) = pack_pair<T>(value(4 * j + 2), value(4 * j + 3));
  }
}
// The accumulators times row factors.
template <class T, int W>
__device__ inline void stage_tile(const float (&d)[W / 2], float low, float high, char* buffer, int block_bytes) {
  stage_values<T, W>([&](int i) { return d[i] * (i & 2 ? high : low); }, buffer, block_bytes);
}

}  // namespace rcm
