// Attention of the text encoder: additive relative bias per head, key lengths per sample; no derivative.
#include "cpu/ops/attention.h"
#include "cpu/ops/simd_math.h"

using namespace rcm;

namespace {

// All queries of one head of one sample, by tiles of queries; the keys that count are packed once.
template <class C>
void head(const void* q, const void* k, const void* v, const C* bias, int64_t keys, void* o, int64_t L, int64_t K, int64_t base, int64_t step, C scale,
          int32_t dtype) {
  const int64_t kp = padded<C>(K), ld = padded<C>(keys);
  C *buffer = scratch<C>(0, K), *kt = scratch<C>(1, K * ld), *vs = scratch<C>(2, keys * kp), *qs = scratch<C>(3, kQueryTile * kp),
    *scores = scratch<C>(4, kQueryTile * ld), *out = scratch<C>(5, kQueryTile * kp);
  pack_columns<C>(k, dtype, base, step, keys, K, kt, ld, buffer);
  pack_rows<C>(v, dtype, base, step, keys, K, (C)1, vs, buffer);
  for (int64_t q0 = 0; q0 < L; q0 += kQueryTile) {
    const int64_t rows = std::min(kQueryTile, L - q0);
    pack_rows<C>(q, dtype, base + q0 * step, step, rows, K, scale, qs, buffer);
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
    for (int64_t i = 0; i < rows; ++i) store_row<C>(o, dtype, base + (q0 + i) * step, K, out + i * kp);
  }
}

}  // namespace

rcm_status rcm_bias_attention(const void* q, const void* k, const void* v, const void* bias, const int32_t* lengths, void* o, int64_t B, int64_t H,
                              int64_t L, int64_t K, double scale, int32_t dtype) {
  return guard("bias_attention", [&] {
    for (const auto& [p, name] : {std::pair<const void*, const char*>{q, "q"}, {k, "k"}, {v, "v"}, {bias, "bias"}, {o, "o"}}) need(p, name);
    size_at_least(B, 0, "B");
    size_at_least(H, 0, "H");
    size_at_least(L, 0, "L");
    size_at_least(K, 1, "K");
    if (K > 128) fail(RCM_E_SHAPE, "K: want at most 128, got %lld", (long long)K);
    for (int64_t b = 0; lengths && b < B; ++b) {
      if (lengths[b] < 0 || lengths[b] > L) fail(RCM_E_ARG, "lengths: want [0,%lld], got %d", (long long)L, lengths[b]);
    }
    with_compute({dtype}, [&](auto zero) {
      using C = decltype(zero);
      parallel_for(B * H, 1, [&](int64_t from, int64_t to, int) {
        for (int64_t i = from; i < to; ++i) {
          const int64_t b = i / H, h = i % H;
          head<C>(q, k, v, static_cast<const C*>(bias) + h * (2 * L - 1), lengths ? lengths[b] : L, o, L, K, b * L * H * K + h * K, H * K, (C)scale, dtype);
        }
      });
    });
  });
}
