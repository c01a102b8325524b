// The permutation between a latent [B,C,T,Y,X] and its patches [B,L,P].
#pragma once
#include "cpu/runtime/common.h"
#include "shared/ops/patch.h"

namespace rcm {

inline void permute_one(const void* from, void* to, int32_t from_dtype, int32_t to_dtype, bool to_tokens,
                        const PatchShape& s) {
  const int64_t ty = s.Y / s.py, tx = s.X / s.px, tt = s.T / s.pt, L = tt * ty * tx, V = s.pt * s.py * s.px,
                P = s.C * V;
  with_dtype(from_dtype, "x", [&](auto from_zero) {
    with_dtype(to_dtype, "y", [&](auto to_zero) {
      using A = decltype(from_zero);
      using Z = decltype(to_zero);
      const A* in = static_cast<const A*>(from);
      Z* out = static_cast<Z*>(to);
      parallel_for(s.B * L, 64, [&](int64_t begin, int64_t end, int) {
        for (int64_t r = begin; r < end; ++r) {
          const int64_t b = r / L, l = r % L, t0 = l / (ty * tx) * s.pt, y0 = l / tx % ty * s.py, x0 = l % tx * s.px;
          for (int64_t c = 0; c < s.C; ++c) {
            for (int64_t t = 0; t < s.pt; ++t) {
              for (int64_t y = 0; y < s.py; ++y) {
                for (int64_t x = 0; x < s.px; ++x) {
                  const int64_t v = (t * s.py + y) * s.px + x, token = r * P + (s.order == 0 ? c * V + v : v * s.C + c);
                  const int64_t latent = (((b * s.C + c) * s.T + t0 + t) * s.Y + y0 + y) * s.X + x0 + x;
                  if (to_tokens) {
                    out[token] = from_float<Z>((double)to_float(in[latent]));
                  } else {
                    out[latent] = from_float<Z>((double)to_float(in[token]));
                  }
                }
              }
            }
          }
        }
      });
    });
  });
}

// Latent to tokens, or back.
inline void permute(const Move& m, bool to_tokens, const PatchShape& s) {
  permute_one(m.from, m.to, m.from_dtype, m.to_dtype, to_tokens, s);
  if (m.from_dot) permute_one(m.from_dot, m.to_dot, m.from_dtype, m.to_dtype, to_tokens, s);
}

}  // namespace rcm
