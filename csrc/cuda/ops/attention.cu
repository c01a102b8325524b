#include "cuda/attention/attention.cuh"

#include <cstdlib>
#include <cstring>

namespace rcm::attention {
namespace {

// RCM_ATTENTION=generic rules out the sm_90a kernels and cuDNN; RCM_ATTENTION=cudnn prefers cuDNN wherever it has a
// kernel. For tests and benchmarks.
bool chosen(const char* name) {
  const char* choice = std::getenv("RCM_ATTENTION");
  return choice && std::strcmp(choice, name) == 0;
}
bool hopper_allowed() { return !chosen("generic"); }

// Whether cuDNN is tried first. Where the sm_90a kernels apply, as measured (test/bench/README.md); elsewhere when the
// problem is large enough to pay for building a cuDNN plan.
bool cudnn_wins(const AttentionShape& s, bool backward) {
  if (chosen("generic")) return false;
  if (chosen("cudnn")) return true;
  if (!hopper_takes(s)) return s.Lq * s.Lk >= (int64_t)1 << 20;
  return s.K == 64 ? s.Lk > 2048 : !backward && s.Lk <= 128 && s.Lq >= 8192;
}

}  // namespace

// The generic kernels compute the primal the same way with and without a tangent, so _fwd and _jvp agree bit for bit.
// The sm_90a kernels use other tiles with a tangent, and agree within rounding.
void forward(const Forward& a, const AttentionShape& s) {
  const auto [q, k, v, q_dot, k_dot, v_dot, o, o_dot, lse] = a;
  float* row_sums = static_cast<float*>(lse);
  if (!o_dot && cudnn_wins(s, false) && cudnn_forward(s, q, k, v, o, row_sums)) return;
  if (hopper_allowed()) {
    if (o_dot ? hopper_jvp(s, q, k, v, q_dot, k_dot, v_dot, o, o_dot, row_sums)
              : hopper_forward(s, q, k, v, o, row_sums))
      return;
  }
  if (split_applies(s)) return split_forward(s, q, k, v, q_dot, k_dot, v_dot, o, o_dot, lse);
  if (!generic_applies(s) || !generic_aligned({q, k, v, o})) {
    return plain_forward(s, q, k, v, q_dot, k_dot, v_dot, o, o_dot, lse);
  }
  if (!o_dot || generic_aligned({q_dot, k_dot, v_dot, o_dot})) {
    return generic_forward(s, q, k, v, q_dot, k_dot, v_dot, o, o_dot, lse);
  }
  generic_forward(s, q, k, v, nullptr, nullptr, nullptr, o, nullptr, lse);
  plain_forward(s, q, k, v, q_dot, k_dot, v_dot, nullptr, o_dot, nullptr);
}

void backward(const Backward& a, const AttentionShape& s) {
  const auto [q, k, v, o, lse, o_bar, q_bar, k_bar, v_bar] = a;
  const float* row_sums = static_cast<const float*>(lse);
  if (cudnn_wins(s, true) && cudnn_backward(s, q, k, v, o, row_sums, o_bar, q_bar, k_bar, v_bar)) return;
  if (hopper_allowed() && hopper_backward(s, q, k, v, o, row_sums, o_bar, q_bar, k_bar, v_bar)) return;
  if (generic_applies(s) && generic_aligned({q, k, v, o, o_bar, q_bar, k_bar, v_bar})) {
    generic_backward(s, q, k, v, o, lse, o_bar, q_bar, k_bar, v_bar);
  } else {
    plain_backward(s, q, k, v, o, lse, o_bar, q_bar, k_bar, v_bar);
  }
}

}  // namespace rcm::attention
