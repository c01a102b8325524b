// The implementations behind the attention op, and what they share. Every function queues on stream().
#pragma once
#include "cuda/runtime/common.cuh"
#include "shared/ops/attention.h"

namespace rcm {

// mma.sync, sm_80 and later, bf16 and f16. A null q_dot, k_dot or v_dot is zero; a null o_dot: no tangent.
bool generic_applies(const AttentionShape& s);
bool generic_aligned(std::initializer_list<const void*> memory);
void generic_forward(const AttentionShape& s, const void* q, const void* k, const void* v, const void* q_dot,
                     const void* k_dot, const void* v_dot, void* o, void* o_dot, void* lse);
void generic_backward(const AttentionShape& s, const void* q, const void* k, const void* v, const void* o,
                      const void* lse, const void* o_bar, void* q_bar, void* k_bar, void* v_bar);

// cuDNN 9, opened at run time: bf16 and f16, widths up to 128. False where it is absent or has no kernel. Its backward
// is not reproducible, so it is used only when rcm_deterministic allows that.
bool cudnn_forward(const AttentionShape& s, const void* q, const void* k, const void* v, void* o, float* lse);
bool cudnn_backward(const AttentionShape& s, const void* q, const void* k, const void* v, const void* o,
                    const float* lse, const void* o_bar, void* q_bar, void* k_bar, void* v_bar);

// Whether the sm_90a kernels support the shape and dtype.
inline bool hopper_takes(const AttentionShape& s) {
  const bool widths = s.K == s.Kv && (s.K == 64 || s.K == 128), types = s.dtype == RCM_BF16 || s.dtype == RCM_F16;
  const bool sizes = s.Lq > 0 && s.Lk > 0 && s.Lq < (1 << 30) && s.Lk < (1 << 30) && s.H <= 65535 && s.B <= 65535;
  return gpu().major == 9 && widths && types && sizes;
}

// wgmma and the bulk copy engine, sm_90a: bf16 and f16, widths 64 and 128. False where they do not apply; the outputs
// are then still to be computed. The tangent kernel takes q_dot alone or all three tangents.
bool hopper_forward(const AttentionShape& s, const void* q, const void* k, const void* v, void* o, float* lse);
bool hopper_jvp(const AttentionShape& s, const void* q, const void* k, const void* v, const void* q_dot,
                const void* k_dot, const void* v_dot, void* o, void* o_dot, float* lse);
bool hopper_backward(const AttentionShape& s, const void* q, const void* k, const void* v, const void* o,
                     const float* lse, const void* o_bar, void* q_bar, void* k_bar, void* v_bar);

// f32 on the tensor cores, each factor as two bf16 numbers (rcm_f32_products).
bool split_applies(const AttentionShape& s);
void split_forward(const AttentionShape& s, const void* q, const void* k, const void* v, const void* q_dot,
                   const void* k_dot, const void* v_dot, void* o, void* o_dot, void* lse);

// Any float dtype, width and stride. o and lse may be null when only the tangent is wanted.
void plain_forward(const AttentionShape& s, const void* q, const void* k, const void* v, const void* q_dot,
                   const void* k_dot, const void* v_dot, void* o, void* o_dot, void* lse);
void plain_backward(const AttentionShape& s, const void* q, const void* k, const void* v, const void* o,
                    const void* lse, const void* o_bar, void* q_bar, void* k_bar, void* v_bar);

// dots[b,h,l] (stat dtype) = sum of o_bar * o over the row's width.
void attention_row_dots(const AttentionShape& s, const void* o, const void* o_bar, void* dots);

__device__ inline int64_t row_offset(const int64_t (&step)[3], int64_t b, int64_t l, int64_t h) {
  return b * step[0] + l * step[1] + h * step[2];
}

// The tile and head of a block of a one-dimensional grid. Tiles vary fastest, so that neighbouring blocks share keys in
// L2.
struct Place {
  int64_t b, h;
  int64_t tile;
  int chunk;
};
__device__ inline Place place_of(int64_t block, int64_t tiles, int chunks, int64_t H) {
  const int64_t pair = block / tiles, head = pair / chunks;
  return {head / H, head % H, block % tiles, (int)(pair % chunks)};
}

// ---- tiles of the mma kernels ------------------------------------------------------------------------------------
// Output columns of one block. Heads wider than 128 are split between two blocks, which both compute the scores, to fit
// registers.
constexpr int output_columns(int width) { return width > 128 ? width / 2 : width; }

// Calls body(head width, own rows, other rows) with compile-time constants, for the smallest instance that holds
// `width`; false if none does. Large tiles need enough rows, and enough shared memory on the device (bytes(D, M, N)).
template <class Body>
bool with_tiles(int64_t width, int64_t rows, size_t (*bytes)(int, int, int), Body&& body) {
  const size_t limit = gpu().shared_per_block;
  bool done = false;
  auto choose = [&](auto d) {
    constexpr int D = decltype(d)::value;
    if (done || width > D) return;
    if constexpr (D <= 128) {
      if (rows > 64 && bytes(D, 128, 64) <= limit) {
        body(d, std::integral_constant<int, 128>{}, std::integral_constant<int, 64>{});
        done = true;
        return;
      }
    }
    if (bytes(D, 64, 32) > limit) return;
    body(d, std::integral_constant<int, 64>{}, std::integral_constant<int, 32>{});
    done = true;
  };
  choose(std::integral_constant<int, 32>{});
  choose(std::integral_constant<int, 64>{});
  choose(std::integral_constant<int, 96>{});
  choose(std::integral_constant<int, 128>{});
  choose(std::integral_constant<int, 192>{});
  choose(std::integral_constant<int, 256>{});
  return done;
}

// Bytes of shared memory of the two kernels for head width d, m own rows per block and n other rows per step.
size_t generic_forward_bytes(int d, int m, int n, bool tangent);
size_t generic_backward_bytes(int d, int m, int n);

}  // namespace rcm
