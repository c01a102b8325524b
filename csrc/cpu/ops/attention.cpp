#include "attention.h"

#include "simd_math.h"

namespace rcm {

AttentionShape attention_shape(const int64_t* strides, int64_t B, int64_t H, int64_t Lq, int64_t Lk, int64_t K, int64_t Kv, double scale, int32_t dtype) {
  size_at_least(B, 0, "B");
  size_at_least(H, 0, "H");
  size_at_least(Lq, 0, "Lq");
  size_at_least(Lk, 0, "Lk");
  size_at_least(K, 1, "K");
  size_at_least(Kv, 1, "Kv");
  AttentionShape s{B, H, Lq, Lk, K, Kv, scale, dtype, {Lq * H * K, H * K, K}, {Lk * H * K, H * K, K}, {Lk * H * Kv, H * Kv, Kv}, {Lq * H * Kv, H * Kv, Kv}};
  if (strides) {
    int64_t* sets[4] = {s.q, s.k, s.v, s.o};
    for (int i = 0; i < 12; ++i) {
      size_at_least(strides[i], 0, "strides");
      sets[i / 3][i % 3] = strides[i];
    }
  }
  return s;
}

namespace {

template <class C>
inline int64_t base(const int64_t* steps, int64_t b, int64_t l, int64_t h) {
  return b * steps[0] + l * steps[1] + h * steps[2];
}

struct Tangents {
  const void *q, *k, *v;
  void* o;
};

// One tile of queries of one head against all keys: online softmax over key tiles; with tangents when `dot` is given.
//   a = sum e^(s-m) v,  h = sum e^(s-m) (s' v + v'),  r = sum e^(s-m) s';  o = a/l,  o' = h/l - (r/l) o.
template <class C>
void tile(const void* q, const void* k, const void* v, const Tangents* dot, void* o, C* lse, const AttentionShape& s, int64_t b, int64_t head, int64_t q0) {
  const int64_t rows = std::min(kQueryTile, s.Lq - q0), kp = padded<C>(s.K), vp = padded<C>(s.Kv), tp = padded<C>(kKeyTile);
  C *buffer = scratch<C>(0, std::max(s.K, s.Kv)), *qs = scratch<C>(1, kQueryTile * kp), *kt = scratch<C>(2, s.K * tp), *vs = scratch<C>(3, kKeyTile * vp),
    *scores = scratch<C>(4, kQueryTile * tp), *acc = scratch<C>(5, kQueryTile * vp);
  C top[kQueryTile], sum[kQueryTile], cross[kQueryTile];
  pack_rows(q, s.dtype, base<C>(s.q, b, q0, head), s.q[1], rows, s.K, (C)s.scale, qs, buffer);
  std::memset(acc, 0, (size_t)(rows * vp) * sizeof(C));
  for (int64_t i = 0; i < rows; ++i) top[i] = -INFINITY, sum[i] = 0, cross[i] = 0;
  C *qd = nullptr, *kd = nullptr, *vd = nullptr, *sd = nullptr, *accd = nullptr;
  if (dot) {
    sd = scratch<C>(6, kQueryTile * tp);
    accd = scratch<C>(7, kQueryTile * vp);
    std::memset(accd, 0, (size_t)(rows * vp) * sizeof(C));
    if (dot->q) {
      qd = scratch<C>(8, kQueryTile * kp);
      pack_rows(dot->q, s.dtype, base<C>(s.q, b, q0, head), s.q[1], rows, s.K, (C)s.scale, qd, buffer);
    }
    if (dot->k) kd = scratch<C>(9, s.K * tp);
    if (dot->v) vd = scratch<C>(10, kKeyTile * vp);
  }
  for (int64_t k0 = 0; k0 < s.Lk; k0 += kKeyTile) {
    const int64_t keys = std::min(kKeyTile, s.Lk - k0), ld = padded<C>(keys);
    pack_columns(k, s.dtype, base<C>(s.k, b, k0, head), s.k[1], keys, s.K, kt, ld, buffer);
    pack_rows(v, s.dtype, base<C>(s.v, b, k0, head), s.v[1], keys, s.Kv, (C)1, vs, buffer);
    product(rows, keys, s.K, qs, kp, 1, kt, ld, scores, ld, false);
    if (qd) product(rows, keys, s.K, qd, kp, 1, kt, ld, sd, ld, false);
    if (kd) {
      pack_columns(dot->k, s.dtype, base<C>(s.k, b, k0, head), s.k[1], keys, s.K, kd, ld, buffer);
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
        if (dot) {
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
      pack_rows(dot->v, s.dtype, base<C>(s.v, b, k0, head), s.v[1], keys, s.Kv, (C)1, vd, buffer);
      product(rows, s.Kv, keys, scores, ld, 1, vd, vp, accd, vp, true);
    }
  }
  for (int64_t i = 0; i < rows; ++i) {
    const C inverse = s.Lk > 0 ? 1 / sum[i] : 0;
    C* row = acc + i * vp;
#pragma omp simd
    for (int64_t j = 0; j < s.Kv; ++j) row[j] *= inverse;
    store_row<C>(o, s.dtype, base<C>(s.o, b, q0 + i, head), s.Kv, row);
    lse[(b * s.H + head) * s.Lq + q0 + i] = s.Lk > 0 ? top[i] + std::log(sum[i]) : -INFINITY;
    if (!dot) continue;
    C* rd = accd + i * vp;
    const C r = cross[i] * inverse;
#pragma omp simd
    for (int64_t j = 0; j < s.Kv; ++j) rd[j] = rd[j] * inverse - r * row[j];
    store_row<C>(dot->o, s.dtype, base<C>(s.o, b, q0 + i, head), s.Kv, rd);
  }
}

void run(const void* q, const void* k, const void* v, const Tangents* dot, void* o, void* lse, const AttentionShape& s) {
  need(q, "q");
  need(k, "k");
  need(v, "v");
  need(o, "o");
  need(lse, "lse");
  with_compute({s.dtype}, [&](auto zero) {
    using C = decltype(zero);
    const int64_t tiles = (s.Lq + kQueryTile - 1) / kQueryTile;
    parallel_for(s.B * s.H * tiles, 1, [&](int64_t from, int64_t to, int) {
      for (int64_t p = from; p < to; ++p) {
        const int64_t pair = p / tiles;
        tile<C>(q, k, v, dot, o, static_cast<C*>(lse), s, pair / s.H, pair % s.H, p % tiles * kQueryTile);
      }
    });
  });
}

}  // namespace
}  // namespace rcm

using namespace rcm;

rcm_status rcm_attention_fwd(const void* q, const void* k, const void* v, void* o, void* lse, const int64_t* strides, int64_t B, int64_t H, int64_t Lq,
                             int64_t Lk, int64_t K, int64_t Kv, double scale, int32_t dtype) {
  return guard("attention_fwd", [&] { run(q, k, v, nullptr, o, lse, attention_shape(strides, B, H, Lq, Lk, K, Kv, scale, dtype)); });
}

rcm_status rcm_attention_jvp(const void* q, const void* k, const void* v, const void* q_dot, const void* k_dot, const void* v_dot, void* o, void* o_dot,
                             void* lse, const int64_t* strides, int64_t B, int64_t H, int64_t Lq, int64_t Lk, int64_t K, int64_t Kv, double scale,
                             int32_t dtype) {
  return guard("attention_jvp", [&] {
    need(o_dot, "o_dot");
    const Tangents dot{q_dot, k_dot, v_dot, o_dot};
    run(q, k, v, &dot, o, lse, attention_shape(strides, B, H, Lq, Lk, K, Kv, scale, dtype));
  });
}
