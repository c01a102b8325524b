// Shared by the sm_90a attention kernels: tensor maps, softmax state, and staging of output tiles.
//
// Accumulator layout of a warpgroup tile: thread t holds rows t/4 and t/4 + 8 of its warp's 16, columns 8j + 2(t%4) +
// {0,1} in d[4j..4j+1] and d[4j+2..4j+3]. Packed in pairs this is the A operand of the next multiply.
#pragma once
#include "attention.cuh"
#include "cuda/ptx/hopper.cuh"
#include "cuda/ptx/tensor_map.cuh"
#include "cuda/ptx/wgmma.cuh"

namespace rcm {

constexpr int kRows = 64;  // query rows of a warpgroup

// Describes [B, L, H, W] with the given (batch, token, head) strides as boxes of 64 columns by `rows` tokens, 128-byte
// swizzle.
inline bool tensor_map(CUtensorMap* map, const void* data, int32_t dtype, int64_t B, int64_t L, int64_t H, int64_t W,
                       const int64_t* strides, int rows) {
  // An axis of one element is never stepped over: any legal stride will do.
  const int64_t sizes[4] = {W, L, H, B};
  const int64_t steps[3] = {L > 1 ? strides[1] : W, H > 1 ? strides[2] : W, B > 1 ? strides[0] : W};
  const int box[4] = {64, rows, 1, 1};
  return encode_tensor_map(map, {data, dtype, 4, sizes, steps, box, 128});
}

// Sets the scores of columns from `left` on to minus infinity.
template <int Registers>
__device__ inline void mask_columns(float (&s)[Registers], int left, int lane) {
#pragma unroll
  for (int j = 0; j < Registers / 4; ++j) {
    const int column = 8 * j + lane % 4 * 2;
    if (column >= left) s[4 * j] = s[4 * j + 2] = -INFINITY;
    if (column + 1 >= left) s[4 * j + 1] = s[4 * j + 3] = -INFINITY;
  }
}

constexpr float kSlack = 4;  // log2 of the largest weight: small enough that P.S' stays in the range of f16

// Online softmax of the two rows of which a thread holds a part, over key tiles. Sums are relative to `top`, which may
// lag behind the true maximum: rescaling waits until a weight would exceed 2^kSlack.
struct SoftmaxRows {
  float top0, top1, sum0, sum1, shrink0 = 1, shrink1 = 1;
  bool shrinks = false;  // warp-wide: earlier sums must be multiplied by shrink0 and shrink1

  __device__ void start() {
    top0 = top1 = -INFINITY;
    sum0 = sum1 = 0;
  }
  // Turns the scores of a tile into weights. to_log2: the scale of the scores over ln 2.
  template <int Registers>
  __device__ void weigh(float (&s)[Registers], float to_log2) {
    float high0 = top0, high1 = top1;
#pragma unroll
    for (int j = 0; j < Registers / 4; ++j) {
      high0 = fmaxf(high0, fmaxf(s[4 * j], s[4 * j + 1]));
      high1 = fmaxf(high1, fmaxf(s[4 * j + 2], s[4 * j + 3]));
    }
    high0 = ptx::quad_max(high0);
    high1 = ptx::quad_max(high1);
    shrinks = __any_sync(0xffffffffu, (high0 - top0) * to_log2 > kSlack || (high1 - top1) * to_log2 > kSlack);
    if (shrinks) {
      shrink0 = ptx::exp2_fast((top0 - high0) * to_log2), shrink1 = ptx::exp2_fast((top1 - high1) * to_log2);
      top0 = high0, top1 = high1;
      sum0 *= shrink0, sum1 *= shrink1;
    }
    const float base0 = top0 * to_log2, base1 = top1 * to_log2;
#pragma unroll
    for (int j = 0; j < Registers / 4; ++j) {
      s[4 * j] = ptx::exp2_fast(fmaf(s[4 * j], to_log2, -base0)),
            s[4 * j + 1] = ptx::exp2_fast(fmaf(s[4 * j + 1], to_log2, -base0));
      s[4 * j + 2] = ptx::exp2_fast(fmaf(s[4 * j + 2], to_log2, -base1)),
                s[4 * j + 3] = ptx::exp2_fast(fmaf(s[4 * j + 3], to_log2, -base1));
      sum0 += s[4 * j] + s[4 * j + 1];
      sum1 += s[4 * j + 2] + s[4 * j + 3];
    }
  }
};

// Writes a [64, W] tile to swizzled shared memory, [W/64][rows of the buffer][64]; value(i) gives the element of
// accumulator i.
template <class T, int W, class Value>
__device__ inline void stage_values(const Value& value, char* buffer, int block_bytes) {
  const int thread = ptx::reload_thread_index(), warp = thread / 32 % 4, lane = thread % 32, row = warp * 16 + lane / 4;
#pragma unroll
  for (int j = 0; j < W / 8; ++j) {
    // row + 8 has the same row % 8.
    char* base = buffer + (j / 8) * block_bytes + ((j % 8 ^ row % 8) * 16) + lane % 4 * 4;
    *reinterpret_cast<uint32_t*>(base + row * 128) = ptx::pack_pair<T>(value(4 * j), value(4 * j + 1));
    *reinterpret_cast<uint32_t*>(base + (row + 8) * 128) = ptx::pack_pair<T>(value(4 * j + 2), value(4 * j + 3));
  }
}
// Writes the accumulators times a factor per row.
template <class T, int W>
__device__ inline void stage_tile(const float (&d)[W / 2], float low, float high, char* buffer, int block_bytes) {
  stage_values<T, W>([&](int i) { return d[i] * (i & 2 ? high : low); }, buffer, block_bytes);
}

}  // namespace rcm
