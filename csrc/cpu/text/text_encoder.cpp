// Ops of the text encoder without derivative: embedding, relative_bias, gelu_gate.
#include "shared/ops/text_encoder.h"

#include <algorithm>

#include "cpu/ops/simd_math.h"
#include "cpu/runtime/common.h"

namespace rcm::text_encoder {
namespace {

constexpr int64_t kBlock = 4096;

void within(const int32_t* ids, int64_t n, int64_t V, const char* name) {
  for (int64_t i = 0; i < n; ++i) {
    if (ids[i] < 0 || ids[i] >= V)
      fail(RCM_E_ARG, "%s: want [0,%lld), got %d at %lld", name, (long long)V, ids[i], (long long)i);
  }
}

}  // namespace

void embedding(const Embedding& a) {
  within(a.ids, a.n, a.V, "ids");
  const int64_t D = a.D;
  parallel_for(a.n, 1 + kBlock / (D + 1), [&](int64_t from, int64_t to, int) {
    double* buffer = scratch<double>(0, D);
    for (int64_t i = from; i < to; ++i) {
      if (a.table_dtype == a.y_dtype) {
        const size_t bytes = (size_t)(D * dtype_bytes(a.y_dtype));
        std::memcpy(at(a.y, i * D, a.y_dtype), at(a.table, a.ids[i] * D, a.table_dtype), bytes);
      } else {
        store_row<double>(a.y, a.y_dtype, i * D, D, load_row<double>(a.table, a.table_dtype, a.ids[i] * D, D, buffer));
      }
    }
  });
}

void relative_bias(const RelativeBias& a) {
  within(a.bucket, a.n, a.V, "bucket");
  double *wide = scratch<double>(0, a.V * a.H), *row = scratch<double>(1, a.n);
  const double* table = load_row<double>(a.table, a.table_dtype, 0, a.V * a.H, wide);
  for (int64_t h = 0; h < a.H; ++h) {
    for (int64_t i = 0; i < a.n; ++i) row[i] = table[a.bucket[i] * a.H + h];
    store_row<double>(a.bias, a.bias_dtype, h * a.n, a.n, row);
  }
}

void gelu_gate(const GeluGate& a) {
  with_compute({a.dtype, a.y_dtype}, [&](auto zero) {
    using C = decltype(zero);
    parallel_for(a.n, kBlock, [&](int64_t from, int64_t to, int) {
      for (int64_t i = from; i < to; i += kBlock) {
        const int64_t m = std::min(kBlock, to - i);
        C* out = scratch<C>(2, kBlock);
        activate_row<kGeluTanh>(load_row<C>(a.gate, a.dtype, i, m, scratch<C>(0, kBlock)), out, m);
        const C* in = load_row<C>(a.x, a.dtype, i, m, scratch<C>(1, kBlock));
#pragma omp simd
        for (int64_t j = 0; j < m; ++j) out[j] *= in[j];
        store_row<C>(a.y, a.y_dtype, i, m, out);
      }
    });
  });
}

}  // namespace rcm::text_encoder
