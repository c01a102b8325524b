// Attention of the text encoder: additive relative bias per head, key lengths per sample; no derivative.
#include "cpu/ops/attention.h"
#include "cpu/ops/simd_math.h"
#include "shared/ops/text_encoder.h"

namespace rcm::text_encoder {
namespace {

// All queries of one head of one sample, by tiles of queries; the valid keys are packed once.
template <class C>
void head(const BiasAttention& a, const C* bias, int64_t keys, int64_t base) {
  const void *q = a.q, *k = a.k, *v = a.v;
  const int64_t L = a.L, K = a.K, step = a.H * a.K, kp = padded<C>(K), ld = padded<C>(keys);
  const int32_t dtype = a.dtype;
  C *buffer = scratch<C>(0, K), *kt = scratch<C>(1, K * ld), *vs = scratch<C>(2, keys * kp),
    *qs = scratch<C>(3, kQueryTile * kp), *scores = scratch<C>(4, kQueryTile * ld),
    *out = scratch<C>(5, kQueryTile * kp);
  pack_columns<C>(k, dtype, base, step, keys, K, kt, ld, buffer);
  pack_rows<C>(v, dtype, base, step, keys, K, (C)1, vs, buffer);
  for (int64_t q0 = 0; q0 < L; q0 += kQueryTile) {
    const int64_t rows = std::min(kQueryTile, L - q0);
    pack_rows<C>(q, dtype, base + q0 * step, step, rows, K, (C)a.scale, qs, buffer);
    product(rows, keys, K, qs, kp, 1, kt, ld, scores, ld, false);
    for (int64_t i = 0; i < rows; ++i) {
      C* s = scores + i * ld;
      const C* b = bias + L - 1 - (q0 + i);
      C top = -INFINITY, sum = 0;
      for (int64_t j = 0; j < keys; ++j) s[j] += b[j];
#pragma omp simd reduction(max : top)
      for (int64_t j = 0; j < keys; ++j) top = s[j] > top ? s[j] : top;
#pragma omp simd reduction(+ : sum)
      for (int64_t j = 0; j < keys; ++j) {
        s[j] = vexp(s[j] - top);
        sum += s[j];
      }
      for (int64_t j = 0; j < keys; ++j) s[j] /= sum;
    }
    product(rows, K, keys, scores, ld, 1, vs, kp, out, kp, false);
    for (int64_t i = 0; i < rows; ++i) store_row<C>(a.o, dtype, base + (q0 + i) * step, K, out + i * kp);
  }
}

}  // namespace

void bias_attention(const BiasAttention& a) {
  const int64_t H = a.H, L = a.L, K = a.K;
  for (int64_t b = 0; a.lengths && b < a.B; ++b) {
    if (a.lengths[b] < 0 || a.lengths[b] > L)
      fail(RCM_E_ARG, "lengths: want [0,%lld], got %d", (long long)L, a.lengths[b]);
  }
  with_compute({a.dtype}, [&](auto zero) {
    using C = decltype(zero);
    parallel_for(a.B * H, 1, [&](int64_t from, int64_t to, int) {
      for (int64_t i = from; i < to; ++i) {
        const int64_t b = i / H, h = i % H;
        const C* bias = static_cast<const C*>(a.bias) + h * (2 * L - 1);
        head<C>(a, bias, a.lengths ? a.lengths[b] : L, b * L * H * K + h * K);
      }
    });
  });
}

}  // namespace rcm::text_encoder
