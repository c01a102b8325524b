// Tiles of attention and its vjp: packing, and a register-blocked matrix product.
#pragma once
#include <algorithm>

#include "cpu/runtime/common.h"
#include "shared/ops/attention.h"

namespace rcm {

constexpr int64_t kQueryTile = 64, kKeyTile = 128;

// Row length of a packed matrix: n rounded up to whole pairs of 64-byte vectors.
template <class C>
constexpr int64_t padded(int64_t n) {
  constexpr int64_t unit = 128 / sizeof(C);
  return (n + unit - 1) / unit * unit;
}

inline int64_t offset_of(const int64_t (&step)[3], int64_t b, int64_t l, int64_t h) {
  return b * step[0] + l * step[1] + h * step[2];
}

template <class C>
struct Vec {
  typedef C type __attribute__((vector_size(64), aligned(4)));
};

// R rows of c by one pair of vectors of columns, in registers.
template <class C, int R>
inline void product_rows(int64_t k, const C* a, int64_t rs, int64_t cs, const C* b, int64_t ldb, C* c, int64_t ldc,
                         bool add) {
  using V = typename Vec<C>::type;
  constexpr int64_t W = 64 / sizeof(C);
  V s0[R], s1[R];
  for (int i = 0; i < R; ++i) {
    s0[i] = add ? *(const V*)(c + i * ldc) : V{};
    s1[i] = add ? *(const V*)(c + i * ldc + W) : V{};
  }
  for (int64_t p = 0; p < k; ++p) {
    const V b0 = *(const V*)(b + p * ldb), b1 = *(const V*)(b + p * ldb + W);
    for (int i = 0; i < R; ++i) {
      const C x = a[i * rs + p * cs];
      s0[i] += x * b0;
      s1[i] += x * b1;
    }
  }
  for (int i = 0; i < R; ++i) {
    *(V*)(c + i * ldc) = s0[i];
    *(V*)(c + i * ldc + W) = s1[i];
  }
}

// c[m,n] = a b, or += when `add`; a has any strides, the rows of b [k,n] and c [m,n] are packed.
template <class C>
void product(int64_t m, int64_t n, int64_t k, const C* a, int64_t rs, int64_t cs, const C* b, int64_t ldb, C* c,
             int64_t ldc, bool add) {
  constexpr int64_t unit = 128 / sizeof(C);
  for (int64_t j = 0; j < n; j += unit) {
    int64_t i = 0;
    for (; i + 4 <= m; i += 4) product_rows<C, 4>(k, a + i * rs, rs, cs, b + j, ldb, c + i * ldc + j, ldc, add);
    for (; i + 2 <= m; i += 2) product_rows<C, 2>(k, a + i * rs, rs, cs, b + j, ldb, c + i * ldc + j, ldc, add);
    for (; i < m; ++i) product_rows<C, 1>(k, a + i * rs, rs, cs, b + j, ldb, c + i * ldc + j, ldc, add);
  }
}

// Packs `rows` rows of one head, `step` elements apart from `base` on, to rows of padded(n) elements, times `scale`.
template <class C>
void pack_rows(const void* x, int32_t dtype, int64_t base, int64_t step, int64_t rows, int64_t n, C scale, C* out,
               C* buffer) {
  const int64_t ld = padded<C>(n);
  for (int64_t r = 0; r < rows; ++r) {
    const C* v = load_row<C>(x, dtype, base + r * step, n, buffer);
    C* y = out + r * ld;
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) y[i] = v[i] * scale;
    for (int64_t i = n; i < ld; ++i) y[i] = 0;
  }
}

// The same transposed: out [n, ld], ld = padded(rows).
template <class C>
void pack_columns(const void* x, int32_t dtype, int64_t base, int64_t step, int64_t rows, int64_t n, C* out, int64_t ld,
                  C* buffer) {
  for (int64_t r = 0; r < rows; ++r) {
    const C* v = load_row<C>(x, dtype, base + r * step, n, buffer);
    for (int64_t i = 0; i < n; ++i) out[i * ld + r] = v[i];
  }
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t r = rows; r < ld; ++r) out[i * ld + r] = 0;
  }
}

}  // namespace rcm
