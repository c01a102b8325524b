// The video autoencoder around its convolutions: norm over channels, layouts, softmax of rows.
#include "cpu/runtime/common.h"

using namespace rcm;

namespace {

constexpr int64_t kWork = 1 << 13;  // elements per thread, at least

}  // namespace

rcm_status rcm_channel_norm(const void* x, const void* g, void* y, int64_t M, int64_t C, int32_t silu, double eps,
                            int32_t dtype, int32_t g_dtype) {
  return guard("channel_norm", [&] {
    need(x, "x");
    need(g, "g");
    need(y, "y");
    size_at_least(M, 0, "M");
    size_at_least(C, 1, "C");
    with_compute({dtype, g_dtype}, [&](auto zero) {
      using F = decltype(zero);
      const F* gamma = load_row<F>(g, g_dtype, 0, C, scratch<F>(0, C));
      parallel_for(M, 1 + kWork / C, [&](int64_t from, int64_t to, int) {
        F *in = scratch<F>(1, C), *buffer = scratch<F>(2, C);
        for (int64_t m = from; m < to; ++m) {
          const F* row = load_row<F>(x, dtype, m * C, C, in);
          F* out = row_target<F>(y, dtype, m * C, buffer);
          double squares = 0;
          for (int64_t c = 0; c < C; ++c) squares += (double)row[c] * (double)row[c];
          const double length = std::sqrt(squares), factor = std::sqrt((double)C) / (length > eps ? length : eps);
          for (int64_t c = 0; c < C; ++c) {
            const double v = (double)row[c] * factor * (double)gamma[c];
            out[c] = (F)(silu ? v / (1 + std::exp(-v)) : v);
          }
          store_row<F>(y, dtype, m * C, C, out);
        }
      });
    });
  });
}

namespace {

void check(const void* x, const void* y, int64_t C, int64_t N, int64_t stride, int64_t wide) {
  need(x, "x");
  need(y, "y");
  size_at_least(C, 1, "C");
  size_at_least(N, 0, "N");
  size_at_least(stride, N, "stride");
  size_at_least(wide, C, "channels of the rows");
}

}  // namespace

rcm_status rcm_channels_last(const void* x, const double* mul, const double* add, void* y, int64_t C, int64_t T,
                             int64_t Y, int64_t X, int64_t c_stride, int64_t t_stride, int64_t y_stride, int64_t Cy,
                             int32_t x_dtype, int32_t y_dtype) {
  return guard("channels_last", [&] {
    size_at_least(T, 0, "T");
    size_at_least(Y, 0, "Y");
    size_at_least(X, 0, "X");
    for (int64_t v : {c_stride, t_stride, y_stride}) size_at_least(v, 0, "stride");
    check(x, y, C, T * Y * X, T * Y * X, Cy);
    with_dtype(x_dtype, "x", [&](auto from_zero) {
      with_dtype(y_dtype, "y", [&](auto to_zero) {
        using A = decltype(from_zero);
        using Z = decltype(to_zero);
        const A* in = static_cast<const A*>(x);
        Z* out = static_cast<Z*>(y);
        parallel_for(T * Y, 1 + kWork / (X * Cy + 1), [&](int64_t from, int64_t to, int) {
          for (int64_t r = from; r < to; ++r) {
            const A* line = in + r / Y * t_stride + r % Y * y_stride;
            for (int64_t i = 0; i < X * Cy; ++i) {
              const int64_t c = i % Cy;
              double v = 0;
              if (c < C) v = (double)to_float(line[c * c_stride + i / Cy]) * (mul ? mul[c] : 1) + (add ? add[c] : 0);
              out[r * X * Cy + i] = from_float<Z>(v);
            }
          }
        });
      });
    });
  });
}

rcm_status rcm_channels_first(const void* x, const double* mul, const double* add, void* y, int64_t C, int64_t N,
                              int64_t Cx, int64_t y_stride, int32_t x_dtype, int32_t y_dtype) {
  return guard("channels_first", [&] {
    check(x, y, C, N, y_stride, Cx);
    with_dtype(x_dtype, "x", [&](auto from_zero) {
      with_dtype(y_dtype, "y", [&](auto to_zero) {
        using A = decltype(from_zero);
        using Z = decltype(to_zero);
        const A* in = static_cast<const A*>(x);
        Z* out = static_cast<Z*>(y);
        parallel_for(N, 1 + kWork / C, [&](int64_t from, int64_t to, int) {
          for (int64_t n = from; n < to; ++n) {
            for (int64_t c = 0; c < C; ++c) {
              out[c * y_stride + n] =
                  from_float<Z>((double)to_float(in[n * Cx + c]) * (mul ? mul[c] : 1) + (add ? add[c] : 0));
            }
          }
        });
      });
    });
  });
}

rcm_status rcm_softmax_rows(const void* x, void* y, int64_t M, int64_t N, double scale, int32_t x_dtype,
                            int32_t y_dtype) {
  return guard("softmax_rows", [&] {
    need(x, "x");
    need(y, "y");
    size_at_least(M, 0, "M");
    size_at_least(N, 1, "N");
    with_compute({x_dtype, y_dtype}, [&](auto zero) {
      using F = decltype(zero);
      parallel_for(M, 1 + kWork / N, [&](int64_t from, int64_t to, int) {
        F *in = scratch<F>(0, N), *buffer = scratch<F>(1, N);
        for (int64_t m = from; m < to; ++m) {
          const F* row = load_row<F>(x, x_dtype, m * N, N, in);
          F* out = row_target<F>(y, y_dtype, m * N, buffer);
          double top = -INFINITY, sum = 0;
          for (int64_t i = 0; i < N; ++i) top = std::fmax(top, scale * (double)row[i]);
          for (int64_t i = 0; i < N; ++i) {
            const double e = std::exp(scale * (double)row[i] - top);
            out[i] = (F)e;
            sum += e;
          }
          for (int64_t i = 0; i < N; ++i) out[i] = (F)((double)out[i] / sum);
          store_row<F>(y, y_dtype, m * N, N, out);
        }
      });
    });
  });
}

rcm_status rcm_blend_tile(const void* x, void* y, int64_t n, int64_t h, int64_t w, int64_t H, int64_t W, int64_t y0,
                          int64_t x0, int64_t top, int64_t bottom, int64_t left, int64_t right, int32_t x_dtype,
                          int32_t y_dtype) {
  return guard("blend_tile", [&] {
    need(x, "x");
    need(y, "y");
    size_at_least(n, 0, "n");
    for (int64_t v : {h, w, y0, x0, top, bottom, left, right}) size_at_least(v, 0, "tile");
    if (y0 + h > H || x0 + w > W) fail(RCM_E_SHAPE, "tile: want within %lld x %lld", (long long)H, (long long)W);
    const auto ramp = [](int64_t i, int64_t size, int64_t low, int64_t high) {
      double f = 1;
      if (low > 0) f = std::fmin(f, ((double)i + 0.5) / (double)low);
      if (high > 0) f = std::fmin(f, ((double)(size - i) - 0.5) / (double)high);
      return f;
    };
    with_dtype(x_dtype, "x", [&](auto from_zero) {
      with_dtype(y_dtype, "y", [&](auto to_zero) {
        using A = decltype(from_zero);
        using Z = decltype(to_zero);
        const A* in = static_cast<const A*>(x);
        Z* out = static_cast<Z*>(y);
        parallel_for(n * h, 1 + kWork / (w + 1), [&](int64_t from, int64_t to, int) {
          for (int64_t r = from; r < to; ++r) {
            const int64_t i = r % h;
            const double u = ramp(i, h, top, bottom);
            Z* line = out + ((r / h) * H + y0 + i) * W + x0;
            for (int64_t j = 0; j < w; ++j) {
              line[j] = from_float<Z>((double)to_float(line[j]) +
                                      (double)to_float(in[r * w + j]) * u * ramp(j, w, left, right));
            }
          }
        });
      });
    });
  });
}
