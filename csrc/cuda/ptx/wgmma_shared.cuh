// Warpgroup matrix multiply (sm_90a) with both operands in shared memory, K along memory, for the widths that
// convolutions use.
#pragma once
#include "wgmma.cuh"

namespace rcm {
namespace ptx {

// Descriptor of rows of RowBytes (32, 64 or 128: the span of the swizzle); groups of 8 consecutive rows are `group`
// bytes apart. The swizzle is a function of the address, so rows may begin at any row of a buffer that was filled from
// a multiple of 1024 bytes on.
template <int RowBytes>
__device__ inline uint64_t wgmma_rows(uint32_t address, uint32_t group) {
  static_assert(RowBytes == 32 || RowBytes == 64 || RowBytes == 128, "swizzle");
  constexpr uint64_t swizzle = RowBytes == 128 ? 1 : RowBytes == 64 ? 2 : 3;
  return ((uint64_t)(address & 0x3ffff) >> 4) | ((uint64_t)1 << 16) | ((uint64_t)(group >> 4) << 32) | (swizzle << 62);
}

// D[64,N] = A[64,16] B[N,16]^T, or += when `accumulate` is not 0.
template <int N, class T>
struct WgmmaShared;

// R: registers of D. A, B, P: the numbers of the operands after D; P says whether to accumulate.
#define RCM_WGMMA_OF(N, R, T, TYPE, A, B, P) \
  template <> \
  struct WgmmaShared<N, T> { \
    __device__ static inline void run(float (&d)[R], uint64_t a, uint64_t b, int accumulate) { \
      asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %" #P ", 0;\nwgmma.mma_async.sync.aligned.m64n" #N \
                   "k16.f32." TYPE "." TYPE " {" RCM_NAMES_##R "}, %" #A ", %" #B ", p, 1, 1, 0, 0;\n}\n" \
                   : RCM_##R(RCM_SUM, 0) \
                   : "l"(a), "l"(b), "r"(accumulate)); \
    } \
  };
RCM_WGMMA_OF(8, 4, __nv_bfloat16, "bf16", 4, 5, 6)
RCM_WGMMA_OF(8, 4, __half, "f16", 4, 5, 6)
RCM_WGMMA_OF(96, 48, __nv_bfloat16, "bf16", 48, 49, 50)
RCM_WGMMA_OF(96, 48, __half, "f16", 48, 49, 50)
RCM_WGMMA_OF(192, 96, __nv_bfloat16, "bf16", 96, 97, 98)
RCM_WGMMA_OF(192, 96, __half, "f16", 96, 97, 98)
#undef RCM_WGMMA_OF

}  // namespace ptx
}  // namespace rcm
