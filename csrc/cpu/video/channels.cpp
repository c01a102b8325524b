// The video autoencoder around its convolutions: norm over channels, layouts, tiles, softmax of rows.
#include "cpu/runtime/common.h"
#include "shared/ops/video.h"

namespace rcm::video {
namespace {

constexpr int64_t kWork = 1 << 13;  // elements per thread, at least

template <class F>
void norm_rows(const ChannelNorm& a) {
  const int64_t C = a.C;
  const F* gamma = load_row<F>(a.g, a.g_dtype, 0, C, scratch<F>(0, C));
  parallel_for(a.M, 1 + kWork / C, [&](int64_t from, int64_t to, int) {
    F *in = scratch<F>(1, C), *buffer = scratch<F>(2, C);
    for (int64_t m = from; m < to; ++m) {
      const F* row = load_row<F>(a.x, a.dtype, m * C, C, in);
      F* out = row_target<F>(a.y, a.dtype, m * C, buffer);
      double squares = 0;
      for (int64_t c = 0; c < C; ++c) squares += (double)row[c] * (double)row[c];
      const double length = std::sqrt(squares), factor = std::sqrt((double)C) / (length > a.eps ? length : a.eps);
      for (int64_t c = 0; c < C; ++c) {
        const double v = (double)row[c] * factor * (double)gamma[c];
        out[c] = (F)(a.silu ? v / (1 + std::exp(-v)) : v);
      }
      store_row<F>(a.y, a.dtype, m * C, C, out);
    }
  });
}

template <class F>
void softmax(const SoftmaxRows& a) {
  const int64_t N = a.N;
  parallel_for(a.M, 1 + kWork / N, [&](int64_t from, int64_t to, int) {
    F *in = scratch<F>(0, N), *buffer = scratch<F>(1, N);
    for (int64_t m = from; m < to; ++m) {
      const F* row = load_row<F>(a.x, a.x_dtype, m * N, N, in);
      F* out = row_target<F>(a.y, a.y_dtype, m * N, buffer);
      double top = -INFINITY, sum = 0;
      for (int64_t i = 0; i < N; ++i) top = std::fmax(top, a.scale * (double)row[i]);
      for (int64_t i = 0; i < N; ++i) {
        const double e = std::exp(a.scale * (double)row[i] - top);
        out[i] = (F)e;
        sum += e;
      }
      for (int64_t i = 0; i < N; ++i) out[i] = (F)((double)out[i] / sum);
      store_row<F>(a.y, a.y_dtype, m * N, N, out);
    }
  });
}

// Calls body(A{}, Z{}) for any two float dtypes.
template <class Body>
void with_any(int32_t a, int32_t b, Body&& body) {
  with_dtype(a, "x", [&](auto first) { with_dtype(b, "y", [&](auto second) { body(first, second); }); });
}

double ramp(int64_t i, int64_t size, int64_t low, int64_t high) {
  double f = 1;
  if (low > 0) f = std::fmin(f, ((double)i + 0.5) / (double)low);
  if (high > 0) f = std::fmin(f, ((double)(size - i) - 0.5) / (double)high);
  return f;
}

}  // namespace

void channel_norm(const ChannelNorm& a) {
  with_compute({a.dtype, a.g_dtype}, [&](auto zero) { norm_rows<decltype(zero)>(a); });
}

void channels_last(const ChannelsLast& a) {
  const int64_t C = a.C, X = a.X, Cy = a.Cy;
  with_any(a.x_dtype, a.y_dtype, [&](auto x_zero, auto y_zero) {
    using A = decltype(x_zero);
    using Z = decltype(y_zero);
    const A* in = static_cast<const A*>(a.x);
    Z* out = static_cast<Z*>(a.y);
    parallel_for(a.T * a.Y, 1 + kWork / (X * Cy + 1), [&](int64_t from, int64_t to, int) {
      for (int64_t r = from; r < to; ++r) {
        const A* line = in + r / a.Y * a.t_stride + r % a.Y * a.y_stride;
        for (int64_t i = 0; i < X * Cy; ++i) {
          const int64_t c = i % Cy;
          double v = 0;
          if (c < C) {
            v = (double)to_float(line[c * a.c_stride + i / Cy]) * (a.mul ? a.mul[c] : 1) + (a.add ? a.add[c] : 0);
          }
          out[r * X * Cy + i] = from_float<Z>(v);
        }
      }
    });
  });
}

void channels_first(const ChannelsFirst& a) {
  const int64_t C = a.C;
  with_any(a.x_dtype, a.y_dtype, [&](auto x_zero, auto y_zero) {
    using A = decltype(x_zero);
    using Z = decltype(y_zero);
    const A* in = static_cast<const A*>(a.x);
    Z* out = static_cast<Z*>(a.y);
    parallel_for(a.N, 1 + kWork / C, [&](int64_t from, int64_t to, int) {
      for (int64_t n = from; n < to; ++n) {
        for (int64_t c = 0; c < C; ++c) {
          const double v = (double)to_float(in[n * a.Cx + c]) * (a.mul ? a.mul[c] : 1) + (a.add ? a.add[c] : 0);
          out[c * a.y_stride + n] = from_float<Z>(v);
        }
      }
    });
  });
}

void blend_tile(const BlendTile& a) {
  const TileShape& s = a.shape;
  with_any(a.x_dtype, a.y_dtype, [&](auto x_zero, auto y_zero) {
    using A = decltype(x_zero);
    using Z = decltype(y_zero);
    const A* in = static_cast<const A*>(a.x);
    Z* out = static_cast<Z*>(a.y);
    parallel_for(s.n * s.h, 1 + kWork / (s.w + 1), [&](int64_t from, int64_t to, int) {
      for (int64_t r = from; r < to; ++r) {
        const int64_t i = r % s.h;
        const double u = ramp(i, s.h, s.top, s.bottom);
        Z* line = out + ((r / s.h) * s.H + s.y0 + i) * s.W + s.x0;
        for (int64_t j = 0; j < s.w; ++j) {
          const double v = (double)to_float(in[r * s.w + j]);
          line[j] = from_float<Z>((double)to_float(line[j]) + v * u * ramp(j, s.w, s.left, s.right));
        }
      }
    });
  });
}

void softmax_rows(const SoftmaxRows& a) {
  with_compute({a.x_dtype, a.y_dtype}, [&](auto zero) { softmax<decltype(zero)>(a); });
}

}  // namespace rcm::video
