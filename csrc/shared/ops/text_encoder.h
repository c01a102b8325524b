// Ops of the text encoder without derivative: arguments and checks, the same for both backends.
#pragma once
#include "shared/guard.h"

namespace rcm::text_encoder {

// y[i,:] = table[ids[i],:].
struct Embedding {
  const void* table;
  const int32_t* ids;
  void* y;
  int64_t n, V, D;
  int32_t table_dtype, y_dtype;
};
// bias[h,i] = table[bucket[i],h].
struct RelativeBias {
  const void* table;
  const int32_t* bucket;
  void* bias;
  int64_t n, V, H;
  int32_t table_dtype, bias_dtype;
};
struct GeluGate {
  const void *x, *gate;
  void* y;
  int64_t n;
  int32_t dtype, y_dtype;
};
struct BiasAttention {
  const void *q, *k, *v, *bias;
  const int32_t* lengths;
  void* o;
  int64_t B, H, L, K;
  double scale;
  int32_t dtype;
};
constexpr int kMaxWidth = 128;  // of a head

// Defined by each backend; the arguments have been checked, but for ids, buckets and lengths, which live on the device.
void embedding(const Embedding& a);
void relative_bias(const RelativeBias& a);
void gelu_gate(const GeluGate& a);
void bias_attention(const BiasAttention& a);

}  // namespace rcm::text_encoder
