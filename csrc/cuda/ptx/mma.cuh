// sm_80 instructions (warp matrix products, matrix loads, asynchronous copies; source: PTX ISA 7.x) and the tile products made of them.
#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>
#include <type_traits>

#include "math.cuh"

namespace rcm {
namespace ptx {

__device__ inline uint32_t shared32(const void* p) { return (uint32_t)__cvta_generic_to_shared(p); }

// Four 8x8 matrices of 16-bit elements; lanes 8i..8i+7 give the rows (16 bytes each) of matrix i. Lane l receives of each matrix
// the elements (row l/4, columns 2(l%4) and the next); transposed: (rows 2(l%4) and the next, column l/4).
__device__ inline void ldmatrix(uint32_t (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared32(row))
               : "memory");
}
__device__ inline void ldmatrix_trans(uint32_t (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared32(row))
               : "memory");
}

// c[16,8] += a[16,16] b[16,8]. With g = lane/4, t = 2(lane%4), each register two neighbours along the second index:
//   a: (g, t) (g+8, t) (g, t+8) (g+8, t+8) of [row][k];  b: (g, t) (g, t+8) of [column][k];  c: (g, t) (g, t+1) (g+8, t) (g+8, t+1).
template <class T>
__device__ inline void mma(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  if constexpr (std::is_same<T, __nv_bfloat16>::value) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  } else {
    static_assert(std::is_same<T, __half>::value, "bf16 or f16");
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  }
}

// Two values rounded into one register, `low` first in memory.
template <class T>
__device__ inline uint32_t pack2(float low, float high) {
  if constexpr (std::is_same<T, __nv_bfloat16>::value) {
    const __nv_bfloat162 v = __floats2bfloat162_rn(low, high);
    return *reinterpret_cast<const uint32_t*>(&v);
  } else {
    const __half2 v = __floats2half2_rn(low, high);
    return *reinterpret_cast<const uint32_t*>(&v);
  }
}

// The sum of such a pair.
template <class T>
__device__ inline float sum2(uint32_t pair) {
  if constexpr (std::is_same<T, __nv_bfloat16>::value) {
    return __uint_as_float(pair << 16) + __uint_as_float(pair & 0xffff0000u);
  } else {
    const float2 v = __half22float2(*reinterpret_cast<const __half2*>(&pair));
    return v.x + v.y;
  }
}

// 16 (or 4) bytes from global to shared memory; zeros, and no read, unless `real`.
__device__ inline void copy16(void* to, const void* from, bool real) {
  const int bytes = real ? 16 : 0;
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared32(to)), "l"(__cvta_generic_to_global(from)), "r"(bytes) : "memory");
}
__device__ inline void copy4(void* to, const void* from, bool real) {
  const int bytes = real ? 4 : 0;
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(shared32(to)), "l"(__cvta_generic_to_global(from)), "r"(bytes) : "memory");
}
__device__ inline void copy_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Waits until at most `Pending` of this thread's latest groups are under way.
template <int Pending>
__device__ inline void copy_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(Pending) : "memory");
}

// ---- tiles and the products of a warp ------------------------------------------------------------------------------
// Rows in shared memory are 16 bytes longer than their data: an odd number of 16-byte units, so that the eight rows of a
// matrix load fall into different banks.
constexpr int pitch(int columns) { return columns + 8; }

// Queues the copy of rows [first, first + Rows) and `Columns` columns; what lies beyond `rows` and `columns` becomes zeros.
template <int Rows, int Columns, int Threads, class T>
__device__ inline void load_tile(T* to, const T* from, int64_t step, int64_t first, int64_t rows, int columns) {
  constexpr int kUnits = Columns / 8;
  static_assert(Rows * kUnits % Threads == 0, "every thread copies the same number of units");
#pragma unroll
  for (int i = 0; i < Rows * kUnits / Threads; ++i) {
    const int unit = threadIdx.x + i * Threads, r = unit / kUnits, c = unit % kUnits * 8;
    const bool real = first + r < rows && c < columns;
    copy16(to + r * pitch(Columns) + c, real ? from + (first + r) * step + c : from, real);
  }
}

// Where this lane's row of a matrix load lies within a 16 x 16 piece: rows in the order of operand a (and of b transposed)...
__device__ inline int piece_rows(int pitch) {
  const int lane = threadIdx.x & 31;
  return (lane & 15) * pitch + (lane >> 4) * 8;
}
// ...and of operand b.
__device__ inline int piece_columns(int pitch) {
  const int lane = threadIdx.x & 31;
  return ((lane & 7) + ((lane >> 4) << 3)) * pitch + ((lane >> 3) & 1) * 8;
}

template <int N>
__device__ inline void clear(float (&c)[N][4]) {
#pragma unroll
  for (int i = 0; i < N; ++i) c[i][0] = c[i][1] = c[i][2] = c[i][3] = 0.f;
}

// c[16, Columns] += a[16, Depth] b[Columns, Depth]^T, both in shared memory.
template <int Depth, int Columns, class T>
__device__ inline void product_abt(float (&c)[Columns / 8][4], const T* a, const T* b) {
  a += piece_rows(pitch(Depth));
  b += piece_columns(pitch(Depth));
#pragma unroll
  for (int k = 0; k < Depth; k += 16) {
    uint32_t x[4];
    ldmatrix(x, a + k);
#pragma unroll
    for (int n = 0; n < Columns; n += 16) {
      uint32_t y[4];
      ldmatrix(y, b + n * pitch(Depth) + k);
      mma<T>(c[n / 8], x, y[0], y[1]);
      mma<T>(c[n / 8 + 1], x, y[2], y[3]);
    }
  }
}

// The accumulator c[16, N * 8] rounded to operands a.
template <class T, int N>
__device__ inline void to_operand(uint32_t (&a)[N / 2][4], const float (&c)[N][4]) {
#pragma unroll
  for (int i = 0; i < N / 2; ++i) {
    a[i][0] = pack2<T>(c[2 * i][0], c[2 * i][1]);
    a[i][1] = pack2<T>(c[2 * i][2], c[2 * i][3]);
    a[i][2] = pack2<T>(c[2 * i + 1][0], c[2 * i + 1][1]);
    a[i][3] = pack2<T>(c[2 * i + 1][2], c[2 * i + 1][3]);
  }
}

// c[16, Columns] += a[16, Depth] b[Depth, Columns], a in registers, b in shared memory with rows of Pitch elements.
template <int Columns, int Pitch, class T, int Depth16>
__device__ inline void product_ab(float (&c)[Columns / 8][4], const uint32_t (&a)[Depth16][4], const T* b) {
  b += piece_rows(Pitch);
#pragma unroll
  for (int k = 0; k < Depth16; ++k) {
#pragma unroll
    for (int n = 0; n < Columns; n += 16) {
      uint32_t y[4];
      ldmatrix_trans(y, b + k * 16 * Pitch + n);
      mma<T>(c[n / 8], a[k], y[0], y[1]);
      mma<T>(c[n / 8 + 1], a[k], y[2], y[3]);
    }
  }
}

__device__ inline float quad_sum(float v) {
  v += __shfl_xor_sync(0xffffffffu, v, 1);
  return v + __shfl_xor_sync(0xffffffffu, v, 2);
}
__device__ inline float quad_max(float v) {
  v = fmaxf(v, __shfl_xor_sync(0xffffffffu, v, 1));
  return fmaxf(v, __shfl_xor_sync(0xffffffffu, v, 2));
}

}  // namespace ptx
}  // namespace rcm
