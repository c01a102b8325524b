// Convolution for any geometry and dtype: an implicit matrix product on the ordinary units.
//
// Tile: 64 positions by 64 outputs, 16 channels deep; 256 threads compute 4 x 4 values each.
#include "conv.cuh"

namespace rcm {
namespace {

constexpr int kTile = 64, kDepth = 16, kPad = 4;

template <class T>
__global__ void __launch_bounds__(256) generic_kernel(const ConvShape g, const T* x, const T* past, const T* w,
                                                      const void* b, int32_t b_dtype, const T* r, T* y) {
  await_queued();
  using C = compute_t<T>;
  __shared__ C a[kDepth][kTile + kPad], weights[kDepth][kTile + kPad];
  const int pass = blockIdx.z, taps = g.taps();
  const int64_t first = (int64_t)blockIdx.x * kTile, o0 = (int64_t)blockIdx.y * kTile, pixels = g.pixels();
  // Each thread loads four channels of one position and of one output.
  const int row = threadIdx.x / 4, quad = threadIdx.x % 4 * 4;
  const int64_t m = first + row, t = m / (g.Yo * g.Xo), yo = m / g.Xo % g.Yo, xo = m % g.Xo;
  const int ty = threadIdx.x / 16 * 4, tx = threadIdx.x % 16 * 4;
  C sum[4][4] = {};
  for (int i = 0; i < taps; ++i) {
    const ConvTap tap = conv_tap(g, pass, i);
    const int64_t ti = t * g.st + tap.dt, yi = yo * g.s + tap.dy, xi = xo * g.s + tap.dx;
    const bool inside = m < pixels && yi >= 0 && yi < g.Y && xi >= 0 && xi < g.X && ti >= -g.P && ti < g.T;
    const T* from =
        inside ? (ti < 0 ? past + ((g.P + ti) * g.Y + yi) * g.X * g.C : x + (ti * g.Y + yi) * g.X * g.C) + xi * g.C
               : nullptr;
    const T* kernel = o0 + row < g.O ? w + ((int64_t)tap.slice * g.O + o0 + row) * g.C : nullptr;
    for (int64_t c0 = 0; c0 < g.C; c0 += kDepth) {
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const int64_t c = c0 + quad + j;
        a[quad + j][row] = from && c < g.C ? (C)load_as(from[c]) : (C)0;
        weights[quad + j][row] = kernel && c < g.C ? (C)load_as(kernel[c]) : (C)0;
      }
      __syncthreads();
#pragma unroll
      for (int k = 0; k < kDepth; ++k) {
        C u[4], v[4];
#pragma unroll
        for (int j = 0; j < 4; ++j) u[j] = a[k][ty + j], v[j] = weights[k][tx + j];
#pragma unroll
        for (int p = 0; p < 4; ++p) {
#pragma unroll
          for (int q = 0; q < 4; ++q) sum[p][q] = fma(u[p], v[q], sum[p][q]);
        }
      }
      __syncthreads();
    }
  }
  const int64_t width = g.O / g.split;
#pragma unroll
  for (int p = 0; p < 4; ++p) {
    const int64_t n = first + ty + p;
    if (n >= pixels) continue;
#pragma unroll
    for (int q = 0; q < 4; ++q) {
      const int64_t o = o0 + tx + q;
      if (o >= g.O) continue;
      const int64_t at =
          conv_output(g, pass, n / (g.Yo * g.Xo), n / g.Xo % g.Yo, n % g.Xo, o / width * width) + o % width;
      C v = sum[p][q] + (b ? load_any<C>(b, o, b_dtype) : (C)0);
      if (r) v += (C)load_as(r[at]);
      y[at] = store_as<T>(v);
    }
  }
}

}  // namespace

void conv_generic(const ConvShape& g, const conv3d::Call& c) {
  const int64_t tiles = ceil_div(g.pixels(), kTile), columns = ceil_div(g.O, kTile);
  if (tiles > INT32_MAX || columns > 65535) fail(RCM_E_SHAPE, "sizes: too much for one launch");
  with_dtype(c.dtype, "dtype", [&](auto zero) {
    using T = decltype(zero);
    const dim3 grid((unsigned)tiles, (unsigned)columns, (unsigned)g.passes());
    queue_kernel(generic_kernel<T>, grid, 256, 0, g, static_cast<const T*>(c.x), static_cast<const T*>(c.past),
                 static_cast<const T*>(c.w), c.b, c.b_dtype, static_cast<const T*>(c.r), static_cast<T*>(c.y));
  });
}

}  // namespace rcm
