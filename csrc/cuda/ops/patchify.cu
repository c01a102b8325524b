// The permutation between a latent [B,C,T,Y,X] and its patches [B,L,P], for patchify and unpatchify.
#include "elementwise.cuh"
#include "patch.cuh"

namespace rcm {
namespace {

// Division of n < 2^31 by a divisor known at launch.
struct Divisor {
  uint32_t by, factor, shift;
  explicit Divisor(int64_t d) : by((uint32_t)d), shift(0) {
    while ((1ull << shift) < (uint64_t)d) ++shift;
    factor = (uint32_t)((((1ull << shift) - (uint64_t)d) << 32) / (uint64_t)d + 1);
  }
  __device__ uint32_t split(uint32_t n, uint32_t& rest) const {
    const uint32_t q = (__umulhi(n, factor) + n) >> shift;
    rest = n - q * by;
    return q;
  }
};

// A block moves a tile: all C*pt*py*px elements of `width` neighbouring patches along x, in the order of the output, so
// that writes are contiguous and the scattered reads share cache lines in L1.
struct Tile {
  Divisor P, V, C, pt, py, px, run;  // run: elements of the tile along x
  Divisor chunks, tokens_y, tokens_t;
  int64_t T, Y, X, tokens_x;
  uint32_t channels, width;
  bool channels_last;
};

template <bool ToTokens, bool Dot, class A, class Z>
__global__ void __launch_bounds__(kThreads) permute_tile(const A* from, const A* from_dot, Z* to, Z* to_dot, Tile s) {
  uint32_t chunk, ty, tt;
  const uint32_t line = s.chunks.split(blockIdx.x, chunk);
  const int64_t b = s.tokens_t.split(s.tokens_y.split(line, ty), tt);
  const int64_t x_first = (int64_t)chunk * s.width, left = s.tokens_x - x_first;
  const uint32_t width = left < s.width ? (uint32_t)left : s.width;
  const int64_t token0 = ((int64_t)line * s.tokens_x + x_first) * s.P.by;
  const int64_t latent0 =
      ((b * s.channels * s.T + (int64_t)tt * s.pt.by) * s.Y + (int64_t)ty * s.py.by) * s.X + x_first * s.px.by;
  await_queued();
#pragma unroll 4
  for (uint32_t e = threadIdx.x; e < width * s.P.by; e += kThreads) {
    uint32_t w, c, t, y, x, token, rest;
    if (ToTokens) {
      uint32_t v;
      token = e;
      w = s.P.split(e, rest);
      if (s.channels_last) v = s.C.split(rest, c);
      else c = s.V.split(rest, v);
      t = s.py.split(s.px.split(v, x), y);
      x += w * s.px.by;
    } else {
      const uint32_t run = width == s.width ? s.run.split(e, x) : e / (width * s.px.by);
      if (width != s.width) x = e - run * (width * s.px.by);
      const uint32_t plane = s.py.split(run, y);
      c = s.pt.split(plane, t);
      w = s.px.split(x, rest);
      const uint32_t v = (t * s.py.by + y) * s.px.by + rest;
      token = w * s.P.by + (s.channels_last ? v * s.channels + c : c * s.V.by + v);
    }
    const int64_t latent = latent0 + (((int64_t)c * s.T + t) * s.Y + y) * s.X + x;
    const int64_t in = ToTokens ? latent : token0 + token, out = ToTokens ? token0 + token : latent;
    to[out] = store_as<Z>(load_as(from[in]));
    if constexpr (Dot) to_dot[out] = store_as<Z>(load_as(from_dot[in]));
  }
}

// Patches of 1x2x2 (Wan, Cosmos-Predict2), without shared memory. On the latent's side a thread moves pairs along x. On
// the tokens' side it moves, where channels come first, the 4U elements of U channels, and where they come last
// (`Last`) two runs of U channels, at x = 0 and x = 1. Neighbouring threads run first along the tokens (kAlong), then
// over `places` in a patch: both sides then move whole 32-byte sectors, with longer runs on the side that is written.
struct Pairs {
  Divisor places, tokens_x, tokens;  // tokens: per sample
  int64_t plane, skip;               // elements of a channel; of a sample less one channel
  uint32_t count, X, C;              // count: tokens of all samples
};

template <class Z, class A>
__device__ inline Raw<Z, 2> convert(const Raw<A, 2>& in) {
  if constexpr (std::is_same<A, Z>::value) return in;
  else {
    compute_t<A> values[2];
    unpack<2>(in, values);
    return pack_raw<Z>(values);
  }
}
// (a0, a1), (b0, b1) becomes (a0, b0), (a1, b1).
template <class T>
__device__ inline void transpose(Raw<T, 2>& a, Raw<T, 2>& b) {
  if constexpr (sizeof(T) == 2) {
    const uint32_t first = __byte_perm(a.u[0], b.u[0], 0x5410);
    b.u[0] = __byte_perm(a.u[0], b.u[0], 0x7632);
    a.u[0] = first;
  } else {
    const auto a1 = a.u[1];
    a.u[1] = b.u[0];
    b.u[0] = a1;
  }
}

template <bool ToTokens>
constexpr uint32_t kAlong = ToTokens ? 8 : 32;

template <bool ToTokens, bool Dot, bool Last, int U, class A, class Z>
__global__ void __launch_bounds__(kThreads) permute_pairs(const A* from, const A* from_dot, Z* to, Z* to_dot, Pairs s) {
  constexpr int kPairs = Last ? U : 2 * U, kRuns = Last ? 2 : 1, kRun = 2 * kPairs / kRuns, kCopies = Dot ? 2 : 1;
  constexpr int kIn = Raw<A, 2>::N, kOut = Raw<Z, 2>::N;
  const uint32_t i = blockIdx.x * kThreads + threadIdx.x;
  uint32_t place, tx, rest;
  const uint32_t token = s.places.split(i / kAlong<ToTokens>, place) * kAlong<ToTokens> + i % kAlong<ToTokens>;
  s.tokens_x.split(token, tx);
  // A line of tokens covers 2 rows of X = 2 tokens_x elements: 4 elements per channel and token.
  const int64_t first = 4 * (int64_t)token - 2 * tx + s.tokens.split(token, rest) * s.skip;
  const uint32_t y = Last ? place & 1 : 0, c = (Last ? place >> 1 : place) * U;
  const int64_t latent = first + c * s.plane + y * s.X,
                patch = (int64_t)token * (4 * s.C) + (Last ? 2 * y * s.C + c : 4 * c);
  const auto pair_at = [&](int j) { return latent + (Last ? j * s.plane : (j >> 1) * s.plane + (j & 1) * s.X); };
  const auto run_at = [&](int r) { return patch + r * s.C; };
  await_queued();
  if (token >= s.count) return;
  Raw<A, 2> pairs[kCopies][kPairs];
  Raw<A, kRun> runs[kCopies][kRuns];
#pragma unroll
  for (int k = 0; k < kCopies; ++k) {
    const A* p = k ? from_dot : from;
    if constexpr (ToTokens) {
#pragma unroll
      for (int j = 0; j < kPairs; ++j) pairs[k][j] = load_raw<2>(p + pair_at(j));
    } else {
#pragma unroll
      for (int r = 0; r < kRuns; ++r) runs[k][r] = load_raw<kRun>(p + run_at(r));
    }
  }
#pragma unroll
  for (int k = 0; k < kCopies; ++k) {
    Z* p = k ? to_dot : to;
    // Pairs along x; where channels come last, pair j / 2 of run j % 2. `transpose` converts between the two.
    Raw<Z, 2> moved[kPairs];
#pragma unroll
    for (int j = 0; j < kPairs; ++j) {
      if constexpr (!ToTokens) {
#pragma unroll
        for (int u = 0; u < kIn; ++u) pairs[k][j].u[u] = runs[k][j % kRuns].u[j / kRuns * kIn + u];
      }
      moved[j] = convert<Z>(pairs[k][j]);
    }
    if constexpr (Last) {
#pragma unroll
      for (int j = 0; j < kPairs; j += 2) transpose<Z>(moved[j], moved[j + 1]);
    }
    if constexpr (ToTokens) {
#pragma unroll
      for (int r = 0; r < kRuns; ++r) {
        Raw<Z, kRun> run;
#pragma unroll
        for (int u = 0; u < Raw<Z, kRun>::N; ++u) run.u[u] = moved[u / kOut * kRuns + r].u[u % kOut];
        store_raw<kRun>(p + run_at(r), run);
      }
    } else {
#pragma unroll
      for (int j = 0; j < kPairs; ++j) store_raw<2>(p + pair_at(j), moved[j]);
    }
  }
}

// False where sizes or addresses do not allow it; permute_tile then does the work.
template <bool ToTokens, bool Last, int U, class A, class Z>
bool queue_pairs(const A* from, const A* from_dot, Z* to, Z* to_dot, const PatchShape& s) {
  constexpr int64_t kRun = Last ? U : 4 * U, kFrom = (ToTokens ? 2 : kRun) * sizeof(A),
                    kTo = (ToTokens ? kRun : 2) * sizeof(Z), kStep = kAlong<ToTokens>;
  const auto fits = [](const void* p, int64_t bytes) { return aligned(p, bytes < 16 ? bytes : 16); };
  if (s.C % U != 0 || !fits(from, kFrom) || !fits(from_dot, kFrom) || !fits(to, kTo) || !fits(to_dot, kTo))
    return false;
  const int64_t plane = s.T * s.Y * s.X, count = s.B * plane / 4, places = (Last ? 2 : 1) * s.C / U,
                threads = ceil_div(count, kStep) * kStep * places;
  if (threads >= 0x7fffff00) return false;
  const Pairs task{Divisor(places),   Divisor(s.X / 2), Divisor(plane / 4), plane,
                   (s.C - 1) * plane, (uint32_t)count,  (uint32_t)s.X,      (uint32_t)s.C};
  const auto kernel =
      from_dot ? permute_pairs<ToTokens, true, Last, U, A, Z> : permute_pairs<ToTokens, false, Last, U, A, Z>;
  queue_kernel(kernel, (unsigned)ceil_div(threads, kThreads), kThreads, 0, from, from_dot, to, to_dot, task);
  return true;
}

template <bool ToTokens, class A, class Z>
void launch(const void* from, const void* from_dot, void* to, void* to_dot, const PatchShape& s) {
  constexpr int64_t kTile = 4096;  // approximate elements per tile
  const A *in = static_cast<const A*>(from), *in_dot = static_cast<const A*>(from_dot);
  Z *out = static_cast<Z*>(to), *out_dot = static_cast<Z*>(to_dot);
  if (s.pt == 1 && s.py == 2 && s.px == 2) {
    constexpr int U = 16 / (int)sizeof(std::conditional_t<ToTokens, Z, A>);
    if (s.order == 1 ? queue_pairs<ToTokens, true, U>(in, in_dot, out, out_dot, s)
                     : queue_pairs<ToTokens, false, 2>(in, in_dot, out, out_dot, s) ||
                           queue_pairs<ToTokens, false, 1>(in, in_dot, out, out_dot, s)) {
      return;
    }
  }
  const int64_t V = s.pt * s.py * s.px, P = s.C * V, tx = s.X / s.px, ty = s.Y / s.py, tt = s.T / s.pt;
  if (P >= 0x40000000) fail(RCM_E_SHAPE, "patch: want below 2^30 elements, got %lld", (long long)P);
  const int64_t most = P < kTile ? kTile / P : 1, chunks = ceil_div(tx, most), width = ceil_div(tx, chunks),
                used = ceil_div(tx, width);
  const Tile tile{
      Divisor(P),    Divisor(V),      Divisor(s.C), Divisor(s.pt), Divisor(s.py), Divisor(s.px), Divisor(width * s.px),
      Divisor(used), Divisor(ty),     Divisor(tt),  s.T,           s.Y,           s.X,           tx,
      (uint32_t)s.C, (uint32_t)width, s.order == 1};
  const unsigned grid = grid_size(s.B * tt * ty * used);
  queue_kernel(from_dot ? permute_tile<ToTokens, true, A, Z> : permute_tile<ToTokens, false, A, Z>, grid, kThreads, 0,
               in, in_dot, out, out_dot, tile);
}

}  // namespace

void permute(const Move& m, bool to_tokens, const PatchShape& s) {
  with_dtype(m.from_dtype, "x", [&](auto a) {
    with_dtype(m.to_dtype, "y", [&](auto z) {
      if (s.B == 0 || s.C == 0 || s.T == 0 || s.Y == 0 || s.X == 0) return;
      if (to_tokens) launch<true, decltype(a), decltype(z)>(m.from, m.from_dot, m.to, m.to_dot, s);
      else launch<false, decltype(a), decltype(z)>(m.from, m.from_dot, m.to, m.to_dot, s);
    });
  });
}

void patchify::forward(const Move& m, const PatchShape& s) { permute(m, true, s); }
void patchify::backward(const Move& m, const PatchShape& s) { permute(m, false, s); }

}  // namespace rcm
