#include "shared/ops/conv3d.h"

#include "cpu/runtime/blas.h"

namespace rcm::conv3d {
namespace {

constexpr int64_t kWork = 1 << 18;  // multiplications per thread, at least

// n elements as C: in place when they are stored as C, else a converted copy.
template <class C>
const C* whole(const void* w, int32_t dtype, int64_t n, int slot) {
  if (dtype == native_dtype<C>()) return static_cast<const C*>(w);
  C* copy = scratch<C>(slot, n);
  parallel_for(n, 1 << 14, [&](int64_t from, int64_t to, int) { load_row<C>(w, dtype, from, to - from, copy + from); });
  return copy;
}

// One row of outputs at a time: a kernel row reads one padded line of the input, and each of its taps is a matrix
// product on it.
template <class C>
void run(const Call& call, const C* w, const C* bias, const ConvShape& g) {
  const void *x = call.x, *past = call.past, *r = call.r;
  void* y = call.y;
  const int32_t dtype = call.dtype;
  const int64_t width = g.O / g.split, span = (g.Xo - 1) * g.s + g.k + 2 * g.p + 2, line_bytes = span * g.C;
  const int taps = g.taps(), across = g.upsample ? 2 : (int)g.k;
  const int64_t row_work = g.passes() * taps * g.Xo * g.O * g.C, grain = row_work < kWork ? kWork / row_work : 1;
  parallel_for(g.To * g.Yo, grain, [&](int64_t from, int64_t to, int) {
    C* sum = scratch<C>(1, g.Xo * g.O);
    C* line = scratch<C>(2, line_bytes);
    C* row = scratch<C>(3, width);
    for (int64_t at = from; at < to; ++at) {
      const int64_t t = at / g.Yo, yo = at % g.Yo;
      for (int pass = 0; pass < g.passes(); ++pass) {
        for (int64_t i = 0; i < g.Xo; ++i) {
          for (int64_t o = 0; o < g.O; ++o) sum[i * g.O + o] = bias ? bias[o] : (C)0;
        }
        for (int tap = 0; tap < taps; tap += across) {
          const ConvTap first = conv_tap(g, pass, tap);
          const int64_t ti = t * g.st + first.dt, yi = yo * g.s + first.dy;
          if (yi < 0 || yi >= g.Y || ti >= g.T || ti < -g.P) continue;
          const void* frames = ti < 0 ? past : x;
          const int64_t base = (((ti < 0 ? g.P + ti : ti) * g.Y + yi) * g.X) * g.C;
          std::memset(line, 0, (size_t)line_bytes * sizeof(C));
          // line[j] is input column j + first.dx.
          const int64_t low = first.dx < 0 ? 0 : first.dx, high = span + first.dx < g.X ? span + first.dx : g.X;
          if (high > low) {
            C* into = line + (low - first.dx) * g.C;
            const C* got = load_row<C>(frames, dtype, base + low * g.C, (high - low) * g.C, into);
            if (got != into) std::memcpy(into, got, (size_t)((high - low) * g.C) * sizeof(C));
          }
          for (int i = 0; i < across; ++i) {
            const C* weights = w + (int64_t)conv_tap(g, pass, tap + i).slice * g.O * g.C;
            gemm(false, true, g.Xo, g.O, g.C, line + (int64_t)i * g.C, g.s * g.C, weights, g.C, (C)1, sum, g.O);
          }
        }
        for (int64_t i = 0; i < g.Xo; ++i) {
          for (int64_t o = 0; o < g.O; o += width) {
            const int64_t to_element = conv_output(g, pass, t, yo, i, o);
            C* out = sum + i * g.O + o;
            if (r) {
              const C* add = load_row<C>(r, dtype, to_element, width, row);
              for (int64_t c = 0; c < width; ++c) out[c] += add[c];
            }
            store_row<C>(y, dtype, to_element, width, out);
          }
        }
      }
    }
  });
}

}  // namespace

void pack(const Pack& a) {
  const int64_t O = a.O, I = a.I, Ip = a.Ip, volume = a.kt * a.k * a.k, slices = a.upsample ? 16 : volume;
  with_compute({a.w_dtype, a.p_dtype}, [&](auto zero) {
    using C = decltype(zero);
    parallel_for(O, 1 + (1 << 14) / (I * volume), [&](int64_t from, int64_t to, int) {
      C* kernel = scratch<C>(0, I * volume);
      C* row = scratch<C>(1, Ip);
      for (int64_t o = from; o < to; ++o) {
        const C* in = load_row<C>(a.w, a.w_dtype, o * I * volume, I * volume, kernel);
        for (int64_t slice = 0; slice < slices; ++slice) {
          for (int64_t c = 0; c < Ip; ++c) {
            row[c] = 0;
            if (c >= I) continue;
            if (!a.upsample) {
              row[c] = in[c * volume + slice];
              continue;
            }
            // Parity q of the output: row e of the 2x2 kernel sums rows {0}, {1,2} (q = 0) or {0,1}, {2} (q = 1) of the
            // 3x3 one.
            const int64_t py = slice / 8, px = slice / 4 % 2, ey = slice / 2 % 2, ex = slice % 2;
            for (int64_t dy = 0; dy < 3; ++dy) {
              for (int64_t dx = 0; dx < 3; ++dx) {
                if ((dy + 1 - py) / 2 == ey && (dx + 1 - px) / 2 == ex) row[c] += in[c * 9 + dy * 3 + dx];
              }
            }
          }
          store_row<C>(a.p, a.p_dtype, (slice * O + o) * Ip, Ip, row);
        }
      }
    });
  });
}

void convolve(const Call& c, const ConvShape& g) {
  with_compute({c.dtype, c.b_dtype}, [&](auto zero) {
    using C = decltype(zero);
    const int64_t slices = g.upsample ? 16 : g.taps();
    const C* bias = c.b ? whole<C>(c.b, c.b_dtype, g.O, 5) : nullptr;
    run<C>(c, whole<C>(c.w, c.dtype, slices * g.O * g.C, 4), bias, g);
  });
}

}  // namespace rcm::conv3d
