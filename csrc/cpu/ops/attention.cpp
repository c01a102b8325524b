#include "attention.h"

#include "simd_math.h"

namespace rcm::attention {
namespace {

// One tile of queries of one head against all keys, by online softmax over key tiles; with the tangent when o_dot is
// given.
//   a = sum e^(s-m) v,  h = sum e^(s-m) (s' v + v'),  r = sum e^(s-m) s';  o = a/l,  o' = h/l - (r/l) o.
template <class C>
void tile(const Forward& f, const AttentionShape& s, int64_t b, int64_t head, int64_t q0) {
  const void *q = f.q, *k = f.k, *v = f.v;
  C* lse = static_cast<C*>(f.lse);
  const int64_t rows = std::min(kQueryTile, s.Lq - q0), kp = padded<C>(s.K), vp = padded<C>(s.Kv),
                tp = padded<C>(kKeyTile);
  C *buffer = scratch<C>(0, std::max(s.K, s.Kv)), *qs = scratch<C>(1, kQueryTile * kp), *kt = scratch<C>(2, s.K * tp),
    *vs = scratch<C>(3, kKeyTile * vp), *scores = scratch<C>(4, kQueryTile * tp), *acc = scratch<C>(5, kQueryTile * vp);
  C top[kQueryTile], sum[kQueryTile], cross[kQueryTile];
  pack_rows(q, s.dtype, offset_of(s.q, b, q0, head), s.q[1], rows, s.K, (C)s.scale, qs, buffer);
  std::memset(acc, 0, (size_t)(rows * vp) * sizeof(C));
  for (int64_t i = 0; i < rows; ++i) top[i] = -INFINITY, sum[i] = 0, cross[i] = 0;
  C *qd = nullptr, *kd = nullptr, *vd = nullptr, *sd = nullptr, *accd = nullptr;
  if (f.o_dot) {
    sd = scratch<C>(6, kQueryTile * tp);
    accd = scratch<C>(7, kQueryTile * vp);
    std::memset(accd, 0, (size_t)(rows * vp) * sizeof(C));
    if (f.q_dot) {
      qd = scratch<C>(8, kQueryTile * kp);
      pack_rows(f.q_dot, s.dtype, offset_of(s.q, b, q0, head), s.q[1], rows, s.K, (C)s.scale, qd, buffer);
    }
    if (f.k_dot) kd = scratch<C>(9, s.K * tp);
    if (f.v_dot) vd = scratch<C>(10, kKeyTile * vp);
  }
  for (int64_t k0 = 0; k0 < s.Lk; k0 += kKeyTile) {
    const int64_t keys = std::min(kKeyTile, s.Lk - k0), ld = padded<C>(keys);
    pack_columns(k, s.dtype, offset_of(s.k, b, k0, head), s.k[1], keys, s.K, kt, ld, buffer);
    pack_rows(v, s.dtype, offset_of(s.v, b, k0, head), s.v[1], keys, s.Kv, (C)1, vs, buffer);
    product(rows, keys, s.K, qs, kp, 1, kt, ld, scores, ld, false);
    if (qd) product(rows, keys, s.K, qd, kp, 1, kt, ld, sd, ld, false);
    if (kd) {
      pack_columns(f.k_dot, s.dtype, offset_of(s.k, b, k0, head), s.k[1], keys, s.K, kd, ld, buffer);
      product(rows, keys, s.K, qs, kp, 1, kd, ld, sd, ld, qd != nullptr);
    }
    for (int64_t i = 0; i < rows; ++i) {
      C* row = scores + i * ld;
      C high = top[i];
#pragma omp simd reduction(max : high)
      for (int64_t j = 0; j < keys; ++j) high = row[j] > high ? row[j] : high;
      const C shrink = high == top[i] ? (C)1 : vexp(top[i] - high);
      top[i] = high;
      C total = 0;
#pragma omp simd reduction(+ : total)
      for (int64_t j = 0; j < keys; ++j) {
        const C e = vexp(row[j] - high);
        row[j] = e;
        total += e;
      }
      sum[i] = sum[i] * shrink + total;
      if (shrink != 1) {
        for (int64_t j = 0; j < vp; ++j) acc[i * vp + j] *= shrink;
        if (f.o_dot) {
          for (int64_t j = 0; j < vp; ++j) accd[i * vp + j] *= shrink;
          cross[i] *= shrink;
        }
      }
      if (qd || kd) {
        C* rd = sd + i * ld;
        C r = 0;
#pragma omp simd reduction(+ : r)
        for (int64_t j = 0; j < keys; ++j) {
          rd[j] *= row[j];
          r += rd[j];
        }
        cross[i] += r;
      }
    }
    product(rows, s.Kv, keys, scores, ld, 1, vs, vp, acc, vp, true);
    if (qd || kd) product(rows, s.Kv, keys, sd, ld, 1, vs, vp, accd, vp, true);
    if (vd) {
      pack_rows(f.v_dot, s.dtype, offset_of(s.v, b, k0, head), s.v[1], keys, s.Kv, (C)1, vd, buffer);
      product(rows, s.Kv, keys, scores, ld, 1, vd, vp, accd, vp, true);
    }
  }
  for (int64_t i = 0; i < rows; ++i) {
    const C inverse = s.Lk > 0 ? 1 / sum[i] : 0;
    C* row = acc + i * vp;
#pragma omp simd
    for (int64_t j = 0; j < s.Kv; ++j) row[j] *= inverse;
    store_row<C>(f.o, s.dtype, offset_of(s.o, b, q0 + i, head), s.Kv, row);
    lse[(b * s.H + head) * s.Lq + q0 + i] = s.Lk > 0 ? top[i] + std::log(sum[i]) : -INFINITY;
    if (!f.o_dot) continue;
    C* rd = accd + i * vp;
    const C r = cross[i] * inverse;
#pragma omp simd
    for (int64_t j = 0; j < s.Kv; ++j) rd[j] = rd[j] * inverse - r * row[j];
    store_row<C>(f.o_dot, s.dtype, offset_of(s.o, b, q0 + i, head), s.Kv, rd);
  }
}

}  // namespace

void forward(const Forward& a, const AttentionShape& s) {
  with_compute({s.dtype}, [&](auto zero) {
    const int64_t tiles = (s.Lq + kQueryTile - 1) / kQueryTile;
    parallel_for(s.B * s.H * tiles, 1, [&](int64_t from, int64_t to, int) {
      for (int64_t p = from; p < to; ++p) {
        const int64_t pair = p / tiles;
        tile<decltype(zero)>(a, s, pair / s.H, pair % s.H, p % tiles * kQueryTile);
      }
    });
  });
}

}  // namespace rcm::attention
