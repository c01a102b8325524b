#include "shared/ops/text_encoder.h"

using namespace rcm;
using namespace rcm::text_encoder;

rcm_status rcm_embedding(const void* table, const int32_t* ids, void* y, int64_t n, int64_t V, int64_t D,
                         int32_t table_dtype, int32_t y_dtype) {
  return op_call("embedding", [&] {
    need(table, "table");
    need(ids, "ids");
    need(y, "y");
    size_at_least(n, 0, "n");
    size_at_least(V, 0, "V");
    size_at_least(D, 0, "D");
    float_dtype(table_dtype, "table_dtype");
    float_dtype(y_dtype, "y_dtype");
    embedding({table, ids, y, n, V, D, table_dtype, y_dtype});
  });
}

rcm_status rcm_relative_bias(const void* table, const int32_t* bucket, void* bias, int64_t n, int64_t V, int64_t H,
                             int32_t table_dtype, int32_t bias_dtype) {
  return op_call("relative_bias", [&] {
    need(table, "table");
    need(bucket, "bucket");
    need(bias, "bias");
    size_at_least(n, 0, "n");
    size_at_least(V, 0, "V");
    size_at_least(H, 0, "H");
    float_dtype(table_dtype, "table_dtype");
    float_dtype(bias_dtype, "bias_dtype");
    relative_bias({table, bucket, bias, n, V, H, table_dtype, bias_dtype});
  });
}

rcm_status rcm_gelu_gate(const void* x, const void* gate, void* y, int64_t n, int32_t dtype, int32_t y_dtype) {
  return op_call("gelu_gate", [&] {
    need(x, "x");
    need(gate, "gate");
    need(y, "y");
    size_at_least(n, 0, "n");
    same_kind(y_dtype, dtype == RCM_F64, "y_dtype");
    gelu_gate({x, gate, y, n, dtype, y_dtype});
  });
}

rcm_status rcm_bias_attention(const void* q, const void* k, const void* v, const void* bias, const int32_t* lengths,
                              void* o, int64_t B, int64_t H, int64_t L, int64_t K, double scale, int32_t dtype) {
  return op_call("bias_attention", [&] {
    need(q, "q");
    need(k, "k");
    need(v, "v");
    need(bias, "bias");
    need(o, "o");
    size_at_least(B, 0, "B");
    size_at_least(H, 0, "H");
    size_at_least(L, 0, "L");
    size_at_least(K, 1, "K");
    if (K > kMaxWidth) fail(RCM_E_SHAPE, "K: want at most %d, got %lld", kMaxWidth, (long long)K);
    bias_attention({q, k, v, bias, lengths, o, B, H, L, K, scale, dtype});
  });
}
