#include "shared/ops/conv3d.h"

using namespace rcm;

rcm_status rcm_conv3d_pack(const void* w, void* p, int64_t O, int64_t I, int64_t Ip, int64_t kt, int64_t k,
                           int32_t upsample, int32_t w_dtype, int32_t p_dtype) {
  return op_call("conv3d_pack", [&] {
    need(w, "w");
    need(p, "p");
    size_at_least(O, 0, "O");
    size_at_least(I, 1, "I");
    size_at_least(Ip, I, "Ip");
    if (kt < 1 || k < 1 || kt > 9 || k > 9) fail(RCM_E_SHAPE, "kernel: want 1 to 9");
    if (upsample && (kt != 1 || k != 3)) fail(RCM_E_SHAPE, "upsample: want kernel 1x3x3");
    same_kind(p_dtype, w_dtype == RCM_F64, "p_dtype");
    conv3d::pack({w, p, O, I, Ip, kt, k, upsample != 0, w_dtype, p_dtype});
  });
}

rcm_status rcm_conv3d(const void* x, const void* past, const void* w, const void* b, const void* r, void* y,
                      const int64_t* geometry, int32_t dtype, int32_t b_dtype) {
  return op_call("conv3d", [&] {
    const ConvShape g = conv_shape(geometry);
    same_kind(dtype, dtype == RCM_F64, "dtype");
    same_kind(b_dtype, dtype == RCM_F64, "b_dtype");
    if (g.pixels() * g.O == 0) return;
    need(x, "x");
    need(w, "w");
    need(y, "y");
    if (g.P > 0) need(past, "past");
    conv3d::convolve({x, past, w, b, r, y, dtype, b_dtype}, g);
  });
}
