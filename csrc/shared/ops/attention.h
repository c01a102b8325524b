// attention: arguments and checks, the same for both backends.
#pragma once
#include "shared/guard.h"

namespace rcm {

struct AttentionShape {
  int64_t B, H, Lq, Lk, K, Kv;
  double scale;
  int32_t dtype;
  int64_t q[3], k[3], v[3], o[3];  // strides in elements over batch, tokens and heads
};

inline AttentionShape attention_shape(int64_t B, int64_t H, int64_t Lq, int64_t Lk, int64_t K, int64_t Kv, double scale,
                                      int32_t dtype) {
  size_at_least(B, 0, "B");
  size_at_least(H, 0, "H");
  size_at_least(Lq, 0, "Lq");
  size_at_least(Lk, 0, "Lk");
  size_at_least(K, 1, "K");
  size_at_least(Kv, 1, "Kv");
  AttentionShape s{B,
                   H,
                   Lq,
                   Lk,
                   K,
                   Kv,
                   scale,
                   dtype,
                   {Lq * H * K, H * K, K},
                   {Lk * H * K, H * K, K},
                   {Lk * H * Kv, H * Kv, Kv},
                   {Lq * H * Kv, H * Kv, Kv}};
  return s;
}

namespace attention {

// o_dot is null in _fwd; in _jvp a null q_dot, k_dot or v_dot is zero.
struct Forward {
  const void *q, *k, *v, *q_dot, *k_dot, *v_dot;
  void *o, *o_dot, *lse;
};
struct Backward {
  const void *q, *k, *v, *o, *lse, *o_bar;
  void *q_bar, *k_bar, *v_bar;
};

// Defined by each backend; the arguments have been checked.
void forward(const Forward& a, const AttentionShape& s);
void backward(const Backward& a, const AttentionShape& s);

}  // namespace attention
}  // namespace rcm
