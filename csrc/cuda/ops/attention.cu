#include "cuda/attention/attention.cuh"

#include <cstdlib>
#include <cstring>

namespace rcm {

AttentionShape attention_shape(const int64_t* strides, int64_t B, int64_t H, int64_t Lq, int64_t Lk, int64_t K, int64_t Kv, double scale,
                               int32_t dtype) {
  size_at_least(B, 0, "B");
  size_at_least(H, 0, "H");
  size_at_least(Lq, 0, "Lq");
  size_at_least(Lk, 0, "Lk");
  size_at_least(K, 1, "K");
  size_at_least(Kv, 1, "Kv");
  AttentionShape s{B, H, Lq, Lk, K, Kv, scale, dtype, {Lq * H * K, H * K, K}, {Lk * H * K, H * K, K}, {Lk * H * Kv, H * Kv, Kv},
                   {Lq * H * Kv, H * Kv, Kv}};
  if (strides) {
    int64_t* sets[4] = {s.q, s.k, s.v, s.o};
    for (int i = 0; i < 12; ++i) {
      size_at_least(strides[i], 0, "strides");
      sets[i / 3][i % 3] = strides[i];
    }
  }
  return s;
}

namespace {

// RCM_ATTENTION=generic leaves the sm_90a kernels and cuDNN out, cudnn prefers cuDNN wherever it has a kernel (tests and benchmarks compare).
bool chosen(const char* name) {
  const char* choice = std::getenv("RCM_ATTENTION");
  return choice && std::strcmp(choice, name) == 0;
}
bool hopper_allowed() { return !chosen("generic"); }

// Whether cuDNN is asked first: where the sm_90a kernels apply, by what was measured (NOTES.md); elsewhere where the work is worth a plan.
bool cudnn_wins(const AttentionShape& s, bool backward) {
  if (chosen("generic")) return false;
  if (chosen("cudnn")) return true;
  if (!hopper_takes(s)) return s.Lq * s.Lk >= (int64_t)1 << 20;
  return s.K == 64 ? s.Lk > 2048 : !backward && s.Lk <= 128 && s.Lq >= 8192;
}

// The generic kernels' primal depends on nothing but the primal's own memory, so fwd and jvp agree bit for bit. The sm_90a kernels use
// other tiles with tangents than without, and agree within rounding.
void forward(const AttentionShape& s, const void* q, const void* k, const void* v, const void* q_dot, const void* k_dot, const void* v_dot,
             void* o, void* o_dot, void* lse) {
  need(q, "q");
  need(k, "k");
  need(v, "v");
  need(o, "o");
  need(lse, "lse");
  float* row_sums = static_cast<float*>(lse);
  if (!o_dot && cudnn_wins(s, false) && cudnn_forward(s, q, k, v, o, row_sums)) return;
  if (hopper_allowed() && (o_dot ? hopper_jvp(s, q, k, v, q_dot, k_dot, v_dot, o, o_dot, row_sums) : hopper_forward(s, q, k, v, o, row_sums))) return;
  if (split_applies(s)) return split_forward(s, q, k, v, q_dot, k_dot, v_dot, o, o_dot, lse);
  if (!generic_applies(s) || !generic_aligned({q, k, v, o})) return plain_forward(s, q, k, v, q_dot, k_dot, v_dot, o, o_dot, lse);
  if (!o_dot || generic_aligned({q_dot, k_dot, v_dot, o_dot})) return generic_forward(s, q, k, v, q_dot, k_dot, v_dot, o, o_dot, lse);
  generic_forward(s, q, k, v, nullptr, nullptr, nullptr, o, nullptr, lse);
  plain_forward(s, q, k, v, q_dot, k_dot, v_dot, nullptr, o_dot, nullptr);
}

}  // namespace
}  // namespace rcm

using namespace rcm;

rcm_status rcm_attention_fwd(const void* q, const void* k, const void* v, void* o, void* lse, const int64_t* strides, int64_t B, int64_t H,
                             int64_t Lq, int64_t Lk, int64_t K, int64_t Kv, double scale, int32_t dtype) {
  return gpu_call("attention_fwd", [&] {
    forward(attention_shape(strides, B, H, Lq, Lk, K, Kv, scale, dtype), q, k, v, nullptr, nullptr, nullptr, o, nullptr, lse);
  });
}

rcm_status rcm_attention_jvp(const void* q, const void* k, const void* v, const void* q_dot, const void* k_dot, const void* v_dot, void* o,
                             void* o_dot, void* lse, const int64_t* strides, int64_t B, int64_t H, int64_t Lq, int64_t Lk, int64_t K, int64_t Kv,
                             double scale, int32_t dtype) {
  return gpu_call("attention_jvp", [&] {
    need(o_dot, "o_dot");
    forward(attention_shape(strides, B, H, Lq, Lk, K, Kv, scale, dtype), q, k, v, q_dot, k_dot, v_dot, o, o_dot, lse);
  });
}

rcm_status rcm_attention_vjp(const void* q, const void* k, const void* v, const void* o, const void* lse, const void* o_bar, void* q_bar, void* k_bar,
                             void* v_bar, const int64_t* strides, int64_t B, int64_t H, int64_t Lq, int64_t Lk, int64_t K, int64_t Kv, double scale,
                             int32_t dtype) {
  return gpu_call("attention_vjp", [&] {
    need(q, "q");
    need(k, "k");
    need(v, "v");
    need(o, "o");
    need(lse, "lse");
    need(o_bar, "o_bar");
    const AttentionShape s = attention_shape(strides, B, H, Lq, Lk, K, Kv, scale, dtype);
    if (cudnn_wins(s, true) && cudnn_backward(s, q, k, v, o, static_cast<const float*>(lse), o_bar, q_bar, k_bar, v_bar)) return;
    if (hopper_allowed() && hopper_backward(s, q, k, v, o, static_cast<const float*>(lse), o_bar, q_bar, k_bar, v_bar)) return;
    if (generic_applies(s) && generic_aligned({q, k, v, o, o_bar, q_bar, k_bar, v_bar})) {
      generic_backward(s, q, k, v, o, lse, o_bar, q_bar, k_bar, v_bar);
    } else {
      plain_backward(s, q, k, v, o, lse, o_bar, q_bar, k_bar, v_bar);
    }
  });
}
