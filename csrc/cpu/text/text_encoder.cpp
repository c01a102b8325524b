// Nondifferentiable ops of the text encoder: embedding, relative_bias, gelu_gate.
#include <algorithm>

#include "cpu/runtime/common.h"
#include "cpu/ops/simd_math.h"

using namespace rcm;

namespace {

constexpr int64_t kBlock = 4096;

void float_dtype(int32_t dtype, const char* name) {
  if (dtype < RCM_F32 || dtype > RCM_F64) fail(RCM_E_DTYPE, "%s: want f32, bf16, f16 or f64, got code %d", name, dtype);
}

void within(const int32_t* ids, int64_t n, int64_t V, const char* name) {
  for (int64_t i = 0; i < n; ++i) {
    if (ids[i] < 0 || ids[i] >= V) fail(RCM_E_ARG, "%s: want [0,%lld), got %d at %lld", name, (long long)V, ids[i], (long long)i);
  }
}

}  // namespace

rcm_status rcm_embedding(const void* table, const int32_t* ids, void* y, int64_t n, int64_t V, int64_t D, int32_t table_dtype, int32_t y_dtype) {
  return guard("embedding", [&] {
    need(table, "table");
    need(ids, "ids");
    need(y, "y");
    size_at_least(n, 0, "n");
    size_at_least(V, 0, "V");
    size_at_least(D, 0, "D");
    float_dtype(table_dtype, "table_dtype");
    float_dtype(y_dtype, "y_dtype");
    within(ids, n, V, "ids");
    parallel_for(n, 1 + kBlock / (D + 1), [&](int64_t from, int64_t to, int) {
      double* buffer = scratch<double>(0, D);
      for (int64_t i = from; i < to; ++i) {
        if (table_dtype == y_dtype) std::memcpy(at(y, i * D, y_dtype), at(table, ids[i] * D, table_dtype), (size_t)(D * dtype_bytes(y_dtype)));
        else store_row<double>(y, y_dtype, i * D, D, load_row<double>(table, table_dtype, ids[i] * D, D, buffer));
      }
    });
  });
}

rcm_status rcm_relative_bias(const void* table, const int32_t* bucket, void* bias, int64_t n, int64_t V, int64_t H, int32_t table_dtype,
                             int32_t bias_dtype) {
  return guard("relative_bias", [&] {
    need(table, "table");
    need(bucket, "bucket");
    need(bias, "bias");
    size_at_least(n, 0, "n");
    size_at_least(V, 0, "V");
    size_at_least(H, 0, "H");
    float_dtype(table_dtype, "table_dtype");
    float_dtype(bias_dtype, "bias_dtype");
    within(bucket, n, V, "bucket");
    double *wide = scratch<double>(0, V * H), *row = scratch<double>(1, n);
    const double* t = load_row<double>(table, table_dtype, 0, V * H, wide);
    for (int64_t h = 0; h < H; ++h) {
      for (int64_t i = 0; i < n; ++i) row[i] = t[bucket[i] * H + h];
      store_row<double>(bias, bias_dtype, h * n, n, row);
    }
  });
}

rcm_status rcm_gelu_gate(const void* x, const void* gate, void* y, int64_t n, int32_t dtype, int32_t y_dtype) {
  return guard("gelu_gate", [&] {
    need(x, "x");
    need(gate, "gate");
    need(y, "y");
    size_at_least(n, 0, "n");
    with_compute({dtype, y_dtype}, [&](auto zero) {
      using C = decltype(zero);
      parallel_for(n, kBlock, [&](int64_t from, int64_t to, int) {
        for (int64_t i = from; i < to; i += kBlock) {
          const int64_t m = std::min(kBlock, to - i);
          C* out = scratch<C>(2, kBlock);
          activate_row<kGeluTanh>(load_row<C>(gate, dtype, i, m, scratch<C>(0, kBlock)), out, m);
          const C* in = load_row<C>(x, dtype, i, m, scratch<C>(1, kBlock));
#pragma omp simd
          for (int64_t j = 0; j < m; ++j) out[j] *= in[j];
          store_row<C>(y, y_dtype, i, m, out);
        }
      });
    });
  });
}
