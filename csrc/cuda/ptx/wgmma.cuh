// Warpgroup matrix multiply (sm_90a): D[64,N] += A[64,16] B[16,N], f32 accumulators, bf16 or f16 operands. Source: PTX
// ISA 8.x.
#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>
#include <type_traits>

namespace rcm {
namespace ptx {

// Orders register writes of this warpgroup before the multiplies that follow.
__device__ inline void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ inline void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
// Waits until at most Pending committed groups are still running.
template <int Pending>
__device__ inline void wgmma_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(Pending) : "memory");
}
// Keeps the compiler from moving uses of registers that a pending multiply reads or writes across this point.
template <int N>
__device__ inline void pin(float (&r)[N]) {
#pragma unroll
  for (int i = 0; i < N; ++i) asm volatile("" : "+f"(r[i])::"memory");
}
template <int N>
__device__ inline void pin(uint32_t (&r)[N]) {
#pragma unroll
  for (int i = 0; i < N; ++i) asm volatile("" : "+r"(r[i])::"memory");
}

// Descriptor of an operand in shared memory with 128-byte swizzle: rows of 64 elements, 8 rows an atom of 1024 bytes.
// `leading`: bytes from one 64-wide column block to the next, used for transposed operands (the multiply's N runs along
// memory).
__device__ inline uint64_t wgmma_operand(uint32_t address, uint32_t leading) {
  return ((uint64_t)(address & 0x3ffff) >> 4) | ((uint64_t)(leading >> 4) << 16) | ((uint64_t)(1024 >> 4) << 32) |
         ((uint64_t)1 << 62);
}

// Wgmma<N, T>::shared: A and B in shared memory, both with K along memory. ::registers: A in registers, B transposed (N
// along memory). ::first is ::shared that overwrites D: D is an output only, so its old value does not stay alive.
template <int N, class T>
struct Wgmma;

// One multiply: its columns N, D's registers as named in the text and as asm operands (RCM_NEW: written, RCM_SUM: read
// and written), and the rest of the instruction. Other operands are numbered after D's N / 2 registers, so their
// numbers depend on N.
#define RCM_WGMMA(N, NAMES, OPERANDS, TYPE, REST, ...) \
  asm volatile("wgmma.mma_async.sync.aligned.m64n" #N "k16.f32." TYPE "." TYPE " {" NAMES "}, " REST \
               : OPERANDS \
               : __VA_ARGS__)

#define RCM_NEW(i) "=f"(d[i])
#define RCM_SUM(i) "+f"(d[i])
#define RCM_4(X, i) X(i), X(i + 1), X(i + 2), X(i + 3)
#define RCM_16(X, i) RCM_4(X, i), RCM_4(X, i + 4), RCM_4(X, i + 8), RCM_4(X, i + 12)
#define RCM_32(X, i) RCM_16(X, i), RCM_16(X, i + 16)
#define RCM_40(X, i) RCM_32(X, i), RCM_4(X, i + 32), RCM_4(X, i + 36)
#define RCM_48(X, i) RCM_32(X, i), RCM_16(X, i + 32)
#define RCM_64(X, i) RCM_32(X, i), RCM_32(X, i + 32)
#define RCM_96(X, i) RCM_64(X, i), RCM_32(X, i + 64)
#define RCM_NAMES_4 "%0, %1, %2, %3"
#define RCM_NAMES_32 \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23, " \
  "%24, %25, %26, " \
  "%27, %28, %29, %30, %31"
#define RCM_NAMES_40 \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23, " \
  "%24, %25, %26, " \
  "%27, %28, %29, %30, %31, %32, %33, %34, %35, %36, %37, %38, %39"
#define RCM_NAMES_48 \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23, " \
  "%24, %25, %26, " \
  "%27, %28, %29, %30, %31, %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47"
#define RCM_NAMES_64 \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23, " \
  "%24, %25, %26, " \
  "%27, %28, %29, %30, %31, %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, " \
  "%49, %50, %51, " \
  "%52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define RCM_NAMES_96 \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23, " \
  "%24, %25, %26, " \
  "%27, %28, %29, %30, %31, %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, " \
  "%49, %50, %51, " \
  "%52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, %64, %65, %66, %67, %68, %69, %70, %71, %72, %73, " \
  "%74, %75, %76, " \
  "%77, %78, %79, %80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95"

// R: registers of D. A to E: the numbers of the operands after D.
#define RCM_WGMMA_OF(N, R, T, TYPE, A, B, C, D, E) \
  template <> \
  struct Wgmma<N, T> { \
    __device__ static inline void first(float (&d)[R], uint64_t a, uint64_t b) { \
      RCM_WGMMA(N, RCM_NAMES_##R, RCM_##R(RCM_NEW, 0), TYPE, "%" #A ", %" #B ", 0, 1, 1, 0, 0;\n", "l"(a), "l"(b)); \
    } \
    __device__ static inline void shared(float (&d)[R], uint64_t a, uint64_t b) { \
      RCM_WGMMA(N, RCM_NAMES_##R, RCM_##R(RCM_SUM, 0), TYPE, "%" #A ", %" #B ", 1, 1, 1, 0, 0;\n", "l"(a), "l"(b)); \
    } \
    __device__ static inline void registers(float (&d)[R], const uint32_t* a, uint64_t b) { \
      RCM_WGMMA(N, RCM_NAMES_##R, RCM_##R(RCM_SUM, 0), TYPE, \
                "{%" #A ", %" #B ", %" #C ", %" #D "}, %" #E ", 1, 1, 1, 1;\n", "r"(a[0]), "r"(a[1]), "r"(a[2]), \
                "r"(a[3]), "l"(b)); \
    } \
  };
RCM_WGMMA_OF(64, 32, __nv_bfloat16, "bf16", 32, 33, 34, 35, 36)
RCM_WGMMA_OF(64, 32, __half, "f16", 32, 33, 34, 35, 36)
RCM_WGMMA_OF(80, 40, __nv_bfloat16, "bf16", 40, 41, 42, 43, 44)
RCM_WGMMA_OF(80, 40, __half, "f16", 40, 41, 42, 43, 44)
RCM_WGMMA_OF(128, 64, __nv_bfloat16, "bf16", 64, 65, 66, 67, 68)
RCM_WGMMA_OF(128, 64, __half, "f16", 64, 65, 66, 67, 68)
#undef RCM_WGMMA_OF

}  // namespace ptx
}  // namespace rcm
