#include "attention.h"
#include "simd_math.h"

namespace rcm::attention {
namespace {

// One head. For each tile of queries and keys, with P = e^(s - lse) and dS = P (o_bar v^T - D), D = rowsum(o_bar o):
//   v_bar += P^T o_bar,  q_bar += scale dS k,  k_bar += scale dS^T q.
template <class C>
void head(const Backward& a, const AttentionShape& s, int64_t b, int64_t h) {
  const void *q = a.q, *k = a.k, *v = a.v, *o = a.o, *o_bar = a.o_bar;
  void *q_bar = a.q_bar, *k_bar = a.k_bar, *v_bar = a.v_bar;
  const C* lse = static_cast<const C*>(a.lse);
  const int64_t kp = padded<C>(s.K), vp = padded<C>(s.Kv), tp = padded<C>(kKeyTile);
  C *buffer = scratch<C>(0, std::max(s.K, s.Kv)), *qs = scratch<C>(1, kQueryTile * kp), *kt = scratch<C>(2, s.K * tp),
    *ks = scratch<C>(3, kKeyTile * kp), *vt = scratch<C>(4, s.Kv * tp), *scores = scratch<C>(5, kQueryTile * tp),
    *ds = scratch<C>(6, kQueryTile * tp), *dob = scratch<C>(7, kQueryTile * vp), *dq = scratch<C>(8, kQueryTile * kp),
    *dk = scratch<C>(9, s.Lk * kp), *dv = scratch<C>(10, s.Lk * vp), *other = scratch<C>(11, s.Kv);
  C dots[kQueryTile];
  std::memset(dk, 0, (size_t)(s.Lk * kp) * sizeof(C));
  std::memset(dv, 0, (size_t)(s.Lk * vp) * sizeof(C));
  for (int64_t q0 = 0; q0 < s.Lq; q0 += kQueryTile) {
    const int64_t rows = std::min(kQueryTile, s.Lq - q0);
    pack_rows(q, s.dtype, offset_of(s.q, b, q0, h), s.q[1], rows, s.K, (C)s.scale, qs, buffer);
    pack_rows(o_bar, s.dtype, offset_of(s.o, b, q0, h), s.o[1], rows, s.Kv, (C)1, dob, buffer);
    for (int64_t i = 0; i < rows; ++i) {
      const C* out = load_row<C>(o, s.dtype, offset_of(s.o, b, q0 + i, h), s.Kv, other);
      C sum = 0;
#pragma omp simd reduction(+ : sum)
      for (int64_t j = 0; j < s.Kv; ++j) sum += out[j] * dob[i * vp + j];
      dots[i] = sum;
    }
    if (q_bar) std::memset(dq, 0, (size_t)(rows * kp) * sizeof(C));
    for (int64_t k0 = 0; k0 < s.Lk; k0 += kKeyTile) {
      const int64_t keys = std::min(kKeyTile, s.Lk - k0), ld = padded<C>(keys);
      pack_columns(k, s.dtype, offset_of(s.k, b, k0, h), s.k[1], keys, s.K, kt, ld, buffer);
      pack_columns(v, s.dtype, offset_of(s.v, b, k0, h), s.v[1], keys, s.Kv, vt, ld, buffer);
      product(rows, keys, s.K, qs, kp, 1, kt, ld, scores, ld, false);
      product(rows, keys, s.Kv, dob, vp, 1, vt, ld, ds, ld, false);
      for (int64_t i = 0; i < rows; ++i) {
        C *p = scores + i * ld, *d = ds + i * ld;
        const C shift = lse[(b * s.H + h) * s.Lq + q0 + i], mean = dots[i];
#pragma omp simd
        for (int64_t j = 0; j < keys; ++j) {
          p[j] = vexp(p[j] - shift);
          d[j] = p[j] * (d[j] - mean);
        }
      }
      if (v_bar) product(keys, s.Kv, rows, scores, 1, ld, dob, vp, dv + k0 * vp, vp, true);
      if (k_bar) product(keys, s.K, rows, ds, 1, ld, qs, kp, dk + k0 * kp, kp, true);
      if (q_bar) {
        pack_rows(k, s.dtype, offset_of(s.k, b, k0, h), s.k[1], keys, s.K, (C)s.scale, ks, buffer);
        product(rows, s.K, keys, ds, ld, 1, ks, kp, dq, kp, true);
      }
    }
    for (int64_t i = 0; q_bar && i < rows; ++i)
      store_row<C>(q_bar, s.dtype, offset_of(s.q, b, q0 + i, h), s.K, dq + i * kp);
  }
  for (int64_t j = 0; j < s.Lk; ++j) {
    if (k_bar) store_row<C>(k_bar, s.dtype, offset_of(s.k, b, j, h), s.K, dk + j * kp);
    if (v_bar) store_row<C>(v_bar, s.dtype, offset_of(s.v, b, j, h), s.Kv, dv + j * vp);
  }
}

}  // namespace

void backward(const Backward& a, const AttentionShape& s) {
  with_compute({s.dtype}, [&](auto zero) {
    parallel_for(s.B * s.H, 1, [&](int64_t from, int64_t to, int) {
      for (int64_t p = from; p < to; ++p) head<decltype(zero)>(a, s, p / s.H, p % s.H);
    });
  });
}

}  // namespace rcm::attention
