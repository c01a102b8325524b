// sm_80: warp matrix products and matrix loads (source: PTX ISA 7.x), and the tile products made of them.
#pragma once
#include "copy.cuh"
#include "lanes.cuh"
#include "math.cuh"

namespace rcm {
namespace ptx {

// Loads four 8x8 matrices of 16-bit elements; lanes 8i..8i+7 pass the row addresses (16 bytes each) of matrix i. Lane l
// receives of each matrix elements (row l/4, columns 2(l%4) and 2(l%4)+1); transposed: (rows 2(l%4) and 2(l%4)+1,
// column l/4).
__device__ inline void ldmatrix(uint32_t (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(row))
               : "memory");
}
__device__ inline void ldmatrix_trans(uint32_t (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(row))
               : "memory");
}

// c[16,8] += a[16,16] b[16,8]. With g = lane/4 and t = 2(lane%4), a register holds two neighbours along the second
// index:
//   a [row][k]:    (g, t) (g+8, t) (g, t+8) (g+8, t+8)
//   b [column][k]: (g, t) (g, t+8)
//   c:             (g, t) (g, t+1) (g+8, t) (g+8, t+1)
template <class T>
__device__ inline void mma(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  if constexpr (std::is_same<T, __nv_bfloat16>::value) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, "
        "%2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  } else {
    static_assert(std::is_same<T, __half>::value, "bf16 or f16");
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, "
        "%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  }
}

// ---- tiles and the products of a warp ------------------------------------------------------------------------------
// Rows in shared memory are padded by 16 bytes to an odd number of 16-byte units, so that the eight rows of a matrix
// load fall into different banks.
constexpr int pitch(int columns) { return columns + 8; }

// Queues the copy of rows [first, first + Rows) and `Columns` columns; elements beyond `rows` and `columns` become
// zeros.
template <int Rows, int Columns, int Threads, class T>
__device__ inline void load_tile(T* to, const T* from, int64_t step, int64_t first, int64_t rows, int columns) {
  constexpr int kUnits = Columns / 8;
  static_assert(Rows * kUnits % Threads == 0, "every thread copies the same number of units");
#pragma unroll
  for (int i = 0; i < Rows * kUnits / Threads; ++i) {
    const int unit = threadIdx.x + i * Threads, r = unit / kUnits, c = unit % kUnits * 8;
    const bool valid = first + r < rows && c < columns;
    copy16(to + r * pitch(Columns) + c, valid ? from + (first + r) * step + c : from, valid);
  }
}

// Offset of this lane's row within a 16 x 16 piece for a matrix load, in the order of operand a (and of b
// transposed)...
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

// c[16, Columns] += a[16, Depth] b[Columns, Depth]^T, both operands in shared memory.
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

// Rounds the accumulator c[16, N * 8] to operand a of the next product.
template <class T, int N>
__device__ inline void to_operand(uint32_t (&a)[N / 2][4], const float (&c)[N][4]) {
#pragma unroll
  for (int i = 0; i < N / 2; ++i) {
    a[i][0] = pack_pair<T>(c[2 * i][0], c[2 * i][1]);
    a[i][1] = pack_pair<T>(c[2 * i][2], c[2 * i][3]);
    a[i][2] = pack_pair<T>(c[2 * i + 1][0], c[2 * i + 1][1]);
    a[i][3] = pack_pair<T>(c[2 * i + 1][2], c[2 * i + 1][3]);
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

}  // namespace ptx
}  // namespace rcm
