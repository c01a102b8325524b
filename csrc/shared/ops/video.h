// Ops of the video autoencoder without derivative (besides conv3d): arguments and checks, the same for both backends.
#pragma once
#include "shared/guard.h"

namespace rcm::video {

struct ChannelNorm {
  const void *x, *g;
  void* y;
  int64_t M, C;
  bool silu;
  double eps;
  int32_t dtype, g_dtype;
};
struct ChannelsLast {
  const void* x;
  const double *mul, *add;
  void* y;
  int64_t C, T, Y, X, c_stride, t_stride, y_stride, Cy;
  int32_t x_dtype, y_dtype;
};
struct ChannelsFirst {
  const void* x;
  const double *mul, *add;
  void* y;
  int64_t C, N, Cx, y_stride;
  int32_t x_dtype, y_dtype;
};
struct TileShape {
  int64_t n, h, w, H, W, y0, x0, top, bottom, left, right;
};
struct BlendTile {
  const void* x;
  void* y;
  TileShape shape;
  int32_t x_dtype, y_dtype;
};
struct SoftmaxRows {
  const void* x;
  void* y;
  int64_t M, N;
  double scale;
  int32_t x_dtype, y_dtype;
};
struct Pixels {
  const void* x;
  void* out;
  int64_t B, C, N;
  int32_t dtype;
};

// Defined by each backend; the arguments have been checked.
void channel_norm(const ChannelNorm& a);
void channels_last(const ChannelsLast& a);
void channels_first(const ChannelsFirst& a);
void blend_tile(const BlendTile& a);
void softmax_rows(const SoftmaxRows& a);
void pixels(const Pixels& a);

}  // namespace rcm::video
