#include "attention.h"
#include "simd_math.h"

using namespace rcm;

namespace {

int64_t base(const int64_t* steps, int64_t b, int64_t l, int64_t h) { return b * steps[0] + l * steps[1] + h * steps[2]; }

// One head: for each tile of queries and keys P = e^(s - lse), dS = P (do v^T - D), D = rowsum(do o); then
//   dv += P^T do,  dq += scale dS k,  dk += scale dS^T q.
template <class C>
void head(const void* q, const void* k, const void* v, const void* o, const C* lse, const void* o_bar, void* q_bar, void* k_bar, void* v_bar,
          const AttentionShape& s, int64_t b, int64_t h) {
  const int64_t kp = padded<C>(s.K), vp = padded<C>(s.Kv), tp = padded<C>(kKeyTile);
  C *buffer = scratch<C>(0, std::max(s.K, s.Kv)), *qs = scratch<C>(1, kQueryTile * kp), *kt = scratch<C>(2, s.K * tp), *ks = scratch<C>(3, kKeyTile * kp),
    *vt = scratch<C>(4, s.Kv * tp), *scores = scratch<C>(5, kQueryTile * tp), *ds = scratch<C>(6, kQueryTile * tp), *dob = scratch<C>(7, kQueryTile * vp),
    *dq = scratch<C>(8, kQueryTile * kp), *dk = scratch<C>(9, s.Lk * kp), *dv = scratch<C>(10, s.Lk * vp), *other = scratch<C>(11, s.Kv);
  C spread[kQueryTile];
  std::memset(dk, 0, (size_t)(s.Lk * kp) * sizeof(C));
  std::memset(dv, 0, (size_t)(s.Lk * vp) * sizeof(C));
  for (int64_t q0 = 0; q0 < s.Lq; q0 += kQueryTile) {
    const int64_t rows = std::min(kQueryTile, s.Lq - q0);
    pack_rows(q, s.dtype, base(s.q, b, q0, h), s.q[1], rows, s.K, (C)s.scale, qs, buffer);
    pack_rows(o_bar, s.dtype, base(s.o, b, q0, h), s.o[1], rows, s.Kv, (C)1, dob, buffer);
    for (int64_t i = 0; i < rows; ++i) {
      const C* out = load_row<C>(o, s.dtype, base(s.o, b, q0 + i, h), s.Kv, other);
      C sum = 0;
#pragma omp simd reduction(+ : sum)
      for (int64_t j = 0; j < s.Kv; ++j) sum += out[j] * dob[i * vp + j];
      spread[i] = sum;
    }
    if (q_bar) std::memset(dq, 0, (size_t)(rows * kp) * sizeof(C));
    for (int64_t k0 = 0; k0 < s.Lk; k0 += kKeyTile) {
      const int64_t keys = std::min(kKeyTile, s.Lk - k0), ld = padded<C>(keys);
      pack_columns(k, s.dtype, base(s.k, b, k0, h), s.k[1], keys, s.K, kt, ld, buffer);
      pack_columns(v, s.dtype, base(s.v, b, k0, h), s.v[1], keys, s.Kv, vt, ld, buffer);
      product(rows, keys, s.K, qs, kp, 1, kt, ld, scores, ld, false);
      product(rows, keys, s.Kv, dob, vp, 1, vt, ld, ds, ld, false);
      for (int64_t i = 0; i < rows; ++i) {
        C *p = scores + i * ld, *d = ds + i * ld;
        const C shift = lse[(b * s.H + h) * s.Lq + q0 + i], mean = spread[i];
#pragma omp simd
        for (int64_t j = 0; j < keys; ++j) {
          p[j] = vexp(p[j] - shift);
          d[j] = p[j] * (d[j] - mean);
        }
      }
      if (v_bar) product(keys, s.Kv, rows, scores, 1, ld, dob, vp, dv + k0 * vp, vp, true);
      if (k_bar) product(keys, s.K, rows, ds, 1, ld, qs, kp, dk + k0 * kp, kp, true);
      if (q_bar) {
        pack_rows(k, s.dtype, base(s.k, b, k0, h), s.k[1], keys, s.K, (C)s.scale, ks, buffer);
        product(rows, s.K, keys, ds, ld, 1, ks, kp, dq, kp, true);
      }
    }
    for (int64_t i = 0; q_bar && i < rows; ++i) store_row<C>(q_bar, s.dtype, base(s.q, b, q0 + i, h), s.K, dq + i * kp);
  }
  for (int64_t j = 0; j < s.Lk; ++j) {
    if (k_bar) store_row<C>(k_bar, s.dtype, base(s.k, b, j, h), s.K, dk + j * kp);
    if (v_bar) store_row<C>(v_bar, s.dtype, base(s.v, b, j, h), s.Kv, dv + j * vp);
  }
}

}  // namespace

rcm_status rcm_attention_vjp(const void* q, const void* k, const void* v, const void* o, const void* lse, const void* o_bar, void* q_bar, void* k_bar,
                             void* v_bar, const int64_t* strides, int64_t B, int64_t H, int64_t Lq, int64_t Lk, int64_t K, int64_t Kv, double scale,
                             int32_t dtype) {
  return guard("attention_vjp", [&] {
    need(q, "q");
    need(k, "k");
    need(v, "v");
    need(o, "o");
    need(lse, "lse");
    need(o_bar, "o_bar");
    const AttentionShape s = attention_shape(strides, B, H, Lq, Lk, K, Kv, scale, dtype);
    with_compute({dtype}, [&](auto zero) {
      using C = decltype(zero);
      parallel_for(B * H, 1, [&](int64_t from, int64_t to, int) {
        for (int64_t p = from; p < to; ++p) head<C>(q, k, v, o, static_cast<const C*>(lse), o_bar, q_bar, k_bar, v_bar, s, p / H, p % H);
      });
    });
  });
}
