#include "shared/ops/attention.h"

using namespace rcm;
using namespace rcm::attention;

static void checked_forward(const Forward& a, const AttentionShape& s) {
  need(a.q, "q");
  need(a.k, "k");
  need(a.v, "v");
  need(a.o, "o");
  need(a.lse, "lse");
  forward(a, s);
}

rcm_status rcm_attention_fwd(const void* q, const void* k, const void* v, void* o, void* lse, int64_t B, int64_t H,
                             int64_t Lq, int64_t Lk, int64_t K, int64_t Kv, double scale, int32_t dtype) {
  return op_call("attention_fwd", [&] {
    const AttentionShape s = attention_shape(B, H, Lq, Lk, K, Kv, scale, dtype);
    checked_forward({q, k, v, nullptr, nullptr, nullptr, o, nullptr, lse}, s);
  });
}

rcm_status rcm_attention_jvp(const void* q, const void* k, const void* v, const void* q_dot, const void* k_dot,
                             const void* v_dot, void* o, void* o_dot, void* lse, int64_t B, int64_t H, int64_t Lq,
                             int64_t Lk, int64_t K, int64_t Kv, double scale, int32_t dtype) {
  return op_call("attention_jvp", [&] {
    need(o_dot, "o_dot");
    const AttentionShape s = attention_shape(B, H, Lq, Lk, K, Kv, scale, dtype);
    checked_forward({q, k, v, q_dot, k_dot, v_dot, o, o_dot, lse}, s);
  });
}

rcm_status rcm_attention_vjp(const void* q, const void* k, const void* v, const void* o, const void* lse,
                             const void* o_bar, void* q_bar, void* k_bar, void* v_bar, int64_t B, int64_t H, int64_t Lq,
                             int64_t Lk, int64_t K, int64_t Kv, double scale, int32_t dtype) {
  return op_call("attention_vjp", [&] {
    need(q, "q");
    need(k, "k");
    need(v, "v");
    need(o, "o");
    need(lse, "lse");
    need(o_bar, "o_bar");
    backward({q, k, v, o, lse, o_bar, q_bar, k_bar, v_bar},
             attention_shape(B, H, Lq, Lk, K, Kv, scale, dtype));
  });
}
