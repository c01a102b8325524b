#include "shared/ops/video.h"

using namespace rcm;

rcm_status rcm_channel_norm(const void* x, const void* g, void* y, int64_t M, int64_t C, int32_t silu, double eps,
                            int32_t dtype, int32_t g_dtype) {
  return op_call("channel_norm", [&] {
    need(x, "x");
    need(g, "g");
    need(y, "y");
    size_at_least(M, 0, "M");
    size_at_least(C, 1, "C");
    same_kind(g_dtype, dtype == RCM_F64, "g_dtype");
    video::channel_norm({x, g, y, M, C, silu != 0, eps, dtype, g_dtype});
  });
}

rcm_status rcm_channels_last(const void* x, const double* mul, const double* add, void* y, int64_t C, int64_t T,
                             int64_t Y, int64_t X, int64_t c_stride, int64_t t_stride, int64_t y_stride, int64_t Cy,
                             int32_t x_dtype, int32_t y_dtype) {
  return op_call("channels_last", [&] {
    need(x, "x");
    need(y, "y");
    for (int64_t v : {T, Y, X, c_stride, t_stride, y_stride}) size_at_least(v, 0, "sizes and strides");
    size_at_least(C, 1, "C");
    size_at_least(Cy, C, "channels of the rows");
    video::channels_last({x, mul, add, y, C, T, Y, X, c_stride, t_stride, y_stride, Cy, x_dtype, y_dtype});
  });
}

rcm_status rcm_channels_first(const void* x, const double* mul, const double* add, void* y, int64_t C, int64_t N,
                              int64_t Cx, int64_t y_stride, int32_t x_dtype, int32_t y_dtype) {
  return op_call("channels_first", [&] {
    need(x, "x");
    need(y, "y");
    size_at_least(C, 1, "C");
    size_at_least(N, 0, "N");
    size_at_least(y_stride, N, "stride");
    size_at_least(Cx, C, "channels of the rows");
    video::channels_first({x, mul, add, y, C, N, Cx, y_stride, x_dtype, y_dtype});
  });
}

rcm_status rcm_blend_tile(const void* x, void* y, int64_t n, int64_t h, int64_t w, int64_t H, int64_t W, int64_t y0,
                          int64_t x0, int64_t top, int64_t bottom, int64_t left, int64_t right, int32_t x_dtype,
                          int32_t y_dtype) {
  return op_call("blend_tile", [&] {
    need(x, "x");
    need(y, "y");
    for (int64_t v : {n, h, w, y0, x0, top, bottom, left, right}) size_at_least(v, 0, "tile");
    if (y0 + h > H || x0 + w > W) fail(RCM_E_SHAPE, "tile: want within %lld x %lld", (long long)H, (long long)W);
    video::blend_tile({x, y, {n, h, w, H, W, y0, x0, top, bottom, left, right}, x_dtype, y_dtype});
  });
}

rcm_status rcm_softmax_rows(const void* x, void* y, int64_t M, int64_t N, double scale, int32_t x_dtype,
                            int32_t y_dtype) {
  return op_call("softmax_rows", [&] {
    need(x, "x");
    need(y, "y");
    size_at_least(M, 0, "M");
    size_at_least(N, 1, "N");
    same_kind(y_dtype, x_dtype == RCM_F64, "y_dtype");
    video::softmax_rows({x, y, M, N, scale, x_dtype, y_dtype});
  });
}

rcm_status rcm_pixels(const void* x, void* out, int64_t B, int64_t C, int64_t N, int32_t dtype) {
  return op_call("pixels", [&] {
    need(x, "x");
    need(out, "out");
    size_at_least(B, 0, "B");
    size_at_least(C, 0, "C");
    size_at_least(N, 0, "N");
    float_dtype(dtype, "dtype");
    video::pixels({x, out, B, C, N, dtype});
  });
}
