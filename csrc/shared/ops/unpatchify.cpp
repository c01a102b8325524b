#include "shared/ops/patch.h"

using namespace rcm;
using namespace rcm::unpatchify;

rcm_status rcm_unpatchify_fwd(const void* x, void* y, int64_t B, int64_t C, int64_t T, int64_t Y, int64_t X, int64_t pt,
                              int64_t py, int64_t px, int32_t order, int32_t x_dtype, int32_t y_dtype) {
  return op_call("unpatchify_fwd", [&] {
    need(x, "x");
    need(y, "y");
    const PatchShape s{B, C, T, Y, X, pt, py, px, order};
    check(s);
    forward({x, nullptr, y, nullptr, x_dtype, y_dtype}, s);
  });
}

rcm_status rcm_unpatchify_jvp(const void* x, const void* x_dot, void* y, void* y_dot, int64_t B, int64_t C, int64_t T,
                              int64_t Y, int64_t X, int64_t pt, int64_t py, int64_t px, int32_t order, int32_t x_dtype,
                              int32_t y_dtype) {
  return op_call("unpatchify_jvp", [&] {
    need(x, "x");
    need(x_dot, "x_dot");
    need(y, "y");
    need(y_dot, "y_dot");
    const PatchShape s{B, C, T, Y, X, pt, py, px, order};
    check(s);
    forward({x, x_dot, y, y_dot, x_dtype, y_dtype}, s);
  });
}

rcm_status rcm_unpatchify_vjp(const void* y_bar, void* x_bar, int64_t B, int64_t C, int64_t T, int64_t Y, int64_t X,
                              int64_t pt, int64_t py, int64_t px, int32_t order, int32_t x_dtype, int32_t y_dtype) {
  return op_call("unpatchify_vjp", [&] {
    need(y_bar, "y_bar");
    need(x_bar, "x_bar");
    const PatchShape s{B, C, T, Y, X, pt, py, px, order};
    check(s);
    backward({y_bar, nullptr, x_bar, nullptr, y_dtype, x_dtype}, s);
  });
}
