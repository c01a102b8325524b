#include "shared/ops/timestep_embed.h"

using namespace rcm;
using namespace rcm::timestep_embed;

rcm_status rcm_timestep_embed_fwd(const double* t, void* y, int64_t B, int64_t N, int32_t dtype) {
  return op_call("timestep_embed_fwd", [&] {
    need(t, "t");
    need(y, "y");
    check({B, N, dtype});
    forward({t, nullptr, y, nullptr}, {B, N, dtype});
  });
}

rcm_status rcm_timestep_embed_jvp(const double* t, const double* t_dot, void* y, void* y_dot, int64_t B, int64_t N,
                                  int32_t dtype) {
  return op_call("timestep_embed_jvp", [&] {
    need(t, "t");
    need(t_dot, "t_dot");
    need(y, "y");
    need(y_dot, "y_dot");
    check({B, N, dtype});
    forward({t, t_dot, y, y_dot}, {B, N, dtype});
  });
}

rcm_status rcm_timestep_embed_vjp(const double* t, const void* y_bar, double* t_bar, int64_t B, int64_t N,
                                  int32_t dtype) {
  return op_call("timestep_embed_vjp", [&] {
    need(t, "t");
    need(y_bar, "y_bar");
    need(t_bar, "t_bar");
    check({B, N, dtype});
    backward({t, y_bar, t_bar}, {B, N, dtype});
  });
}
