// conv3d: geometry, arguments and checks, the same for both backends.
#pragma once
#include "shared/guard.h"
#include "shared/host_device.h"

namespace rcm {

struct ConvShape {
  int64_t T, Y, X, C;     // of x
  int64_t P;              // frames of `past`
  int64_t To, Yo, Xo, O;  // of the sum, before upsampling and split
  int64_t kt, k, st, s, pt, p;
  int64_t upsample, split;

  RCM_BOTH int64_t pixels() const { return To * Yo * Xo; }
  // Passes over the positions of the sum: one, or with upsampling one for each parity of the doubled grid.
  RCM_BOTH int passes() const { return upsample ? 4 : 1; }
  RCM_BOTH int taps() const { return upsample ? 4 : (int)(kt * k * k); }
};

// One term of the sum: its slice of the packed weights, and its offset from the input position (t st, y s, x s).
struct ConvTap {
  int slice, dt, dy, dx;
};

RCM_BOTH inline ConvTap conv_tap(const ConvShape& g, int pass, int tap) {
  if (g.upsample) {
    const int py = pass / 2, px = pass % 2, ey = tap / 2, ex = tap % 2;
    return {pass * 4 + tap, 0, py - 1 + ey, px - 1 + ex};
  }
  const int k = (int)g.k, dx = tap % k, dy = tap / k % k, dt = tap / (k * k);
  return {tap, dt - (int)g.pt, dy - (int)g.p, dx - (int)g.p};
}

// Element of y (and r) that channel o of a position of the sum goes to. With a split, o / (O / split) selects the
// frame.
RCM_BOTH inline int64_t conv_output(const ConvShape& g, int pass, int64_t t, int64_t y, int64_t x, int64_t o) {
  const int64_t width = g.O / g.split, frame = g.split * t + o / width, c = o % width;
  if (g.upsample) return ((frame * 2 * g.Yo + 2 * y + pass / 2) * 2 * g.Xo + 2 * x + pass % 2) * width + c;
  return ((frame * g.Yo + y) * g.Xo + x) * width + c;
}

inline ConvShape conv_shape(const int64_t* geometry) {
  need(geometry, "geometry");
  const int64_t* n = geometry;
  const ConvShape g{n[0], n[1],  n[2],  n[3],  n[4],  n[5],  n[6],  n[7], n[8],
                    n[9], n[10], n[11], n[12], n[13], n[14], n[15], n[16]};
  static const char* const names[9] = {"T", "Y", "X", "C", "P", "To", "Yo", "Xo", "O"};
  for (int i = 0; i < 9; ++i) {
    size_at_least(n[i], 0, names[i]);
    if (n[i] > ((int64_t)1 << 30)) fail(RCM_E_SHAPE, "%s: want at most 2^30, got %lld", names[i], (long long)n[i]);
  }
  size_at_least(g.C, 1, "C");
  for (int64_t v : {g.kt, g.k, g.st, g.s}) {
    if (v < 1 || v > 9) fail(RCM_E_SHAPE, "kernel and stride: want 1 to 9");
  }
  if (g.pt < 0 || g.pt > 9 || g.p < 0 || g.p > 9) fail(RCM_E_SHAPE, "pads: want 0 to 9");
  if (g.split < 1 || g.split > 9 || g.O % g.split != 0) {
    fail(RCM_E_SHAPE, "split: want a divisor of O = %lld, got %lld", (long long)g.O, (long long)g.split);
  }
  if (g.upsample != 0 && g.upsample != 1) fail(RCM_E_ARG, "upsample: want 0 or 1, got %lld", (long long)g.upsample);
  const bool doubled = g.kt == 1 && g.k == 3 && g.s == 1 && g.st == 1 && g.p == 1 && g.pt == 0 && g.split == 1;
  if (g.upsample && (!doubled || g.Yo != g.Y || g.Xo != g.X)) {
    fail(RCM_E_SHAPE, "upsample: want kernel 1x3x3, stride 1, pad 1, no split and Yo x Xo = Y x X");
  }
  return g;
}

namespace conv3d {

struct Pack {
  const void* w;
  void* p;
  int64_t O, I, Ip, kt, k;
  bool upsample;
  int32_t w_dtype, p_dtype;
};
struct Call {
  const void *x, *past, *w, *b, *r;
  void* y;
  int32_t dtype, b_dtype;
};

// Defined by each backend; the arguments have been checked.
void pack(const Pack& a);
void convolve(const Call& c, const ConvShape& g);

}  // namespace conv3d
}  // namespace rcm
