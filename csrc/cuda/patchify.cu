// The permutation between a latent [B,C,T,Y,X] and its patches [B,L,P], for unpatchify too.
#include "elementwise.cuh"

using namespace rcm;

namespace {

// Division of n < 2^31 by a number known when the kernel is launched.
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

// A block moves a tile: all C*pt*py*px elements of `width` neighbouring patches along x, in the order of what it writes,
// so that the writes are runs and the scattered reads share their cache lines in L1.
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
  const int64_t latent0 = ((b * s.channels * s.T + (int64_t)tt * s.pt.by) * s.Y + (int64_t)ty * s.py.by) * s.X + x_first * s.px.by;
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

// The same by way of shared memory, so that both sides move packs: latent rows of the tile in `Wide` packs or by elements, tokens in packs of
// 16 bytes, of which a thread always holds the same place in the patch. kThreads is a multiple of the packs of a patch.
template <bool ToTokens, bool Dot, bool Wide, class A, class Z>
__global__ void __launch_bounds__(kThreads) permute_rows(const A* from, const A* from_dot, Z* to, Z* to_dot, Tile s, Divisor packs, Divisor packs_of_row) {
  using Latent = std::conditional_t<ToTokens, A, Z>;
  using Token = std::conditional_t<ToTokens, Z, A>;
  constexpr int V = 16 / (int)sizeof(Token), R = Wide ? 16 / (int)sizeof(Latent) : 1, kCopies = Dot ? 2 : 1;
  extern __shared__ __align__(16) unsigned char memory[];
  Latent* rows = reinterpret_cast<Latent*>(memory);
  uint32_t chunk, ty, tt;
  const uint32_t line = s.chunks.split(blockIdx.x, chunk);
  const int64_t b = s.tokens_t.split(s.tokens_y.split(line, ty), tt);
  const int64_t x_first = (int64_t)chunk * s.width, left = s.tokens_x - x_first;
  const uint32_t width = left < s.width ? (uint32_t)left : s.width, row_packs = width * s.px.by / R, all = s.channels * s.pt.by * s.py.by * row_packs;
  const uint32_t pitch = s.width * s.px.by, copy = s.channels * s.pt.by * s.py.by * pitch;
  const int64_t token0 = ((int64_t)line * s.tokens_x + x_first) * s.P.by;
  const int64_t latent0 = ((b * s.channels * s.T + (int64_t)tt * s.pt.by) * s.Y + (int64_t)ty * s.py.by) * s.X + x_first * s.px.by;

  // On the side of the tokens a thread moves V elements from `place` on, of every (kThreads / packs)th patch.
  uint32_t place;
  const uint32_t first = packs.split(threadIdx.x, place), step = kThreads / packs.by;
  uint32_t at[V];
  const auto find_places = [&] {
#pragma unroll
    for (int j = 0; j < V; ++j) {
      uint32_t c, v, t, y, x;
      if (s.channels_last) v = s.C.split(place * V + j, c);
      else c = s.V.split(place * V + j, v);
      t = s.py.split(s.px.split(v, x), y);
      at[j] = ((c * s.pt.by + t) * s.py.by + y) * pitch + x;
    }
  };
  const auto split_row = [&](uint32_t i, uint32_t& rest) {
    if (width == s.width) return packs_of_row.split(i, rest);
    const uint32_t row = i / row_packs;
    rest = i - row * row_packs;
    return row;
  };
  const auto latent_of = [&](uint32_t i, uint32_t& in) {
    uint32_t x, y, t;
    const uint32_t row = split_row(i, x);
    x *= R;
    const uint32_t c = s.pt.split(s.py.split(row, y), t);
    in = row * pitch + x;
    return latent0 + (((int64_t)c * s.T + t) * s.Y + y) * s.X + x;
  };
  using Row = Pack<Latent, R>;
  using Patch = Pack<Token, V>;
  const auto row_at = [&](uint32_t i) -> Row& { return *reinterpret_cast<Row*>(rows + i); };
  // kAhead loads of a thread are under way while it finds its places.
  constexpr int kAhead = 2;
  if constexpr (ToTokens) {
    for (uint32_t i0 = threadIdx.x; i0 < all; i0 += kAhead * kThreads) {
      Row held[kAhead][kCopies];
      uint32_t in[kAhead];
#pragma unroll
      for (int u = 0; u < kAhead; ++u) {
        if (i0 + u * kThreads >= all) continue;
        const int64_t i = latent_of(i0 + u * kThreads, in[u]);
        held[u][0] = *reinterpret_cast<const Row*>(from + i);
        if constexpr (Dot) held[u][1] = *reinterpret_cast<const Row*>(from_dot + i);
      }
      if (i0 == threadIdx.x) find_places();
#pragma unroll
      for (int u = 0; u < kAhead; ++u) {
        if (i0 + u * kThreads >= all) continue;
#pragma unroll
        for (int k = 0; k < kCopies; ++k) row_at(k * copy + in[u]) = held[u][k];
      }
    }
    if (threadIdx.x >= all) find_places();
    __syncthreads();
    for (uint32_t w = first; w < width; w += step) {
      const int64_t i = token0 + (int64_t)w * s.P.by + place * V;
#pragma unroll
      for (int k = 0; k < kCopies; ++k) {
        compute_t<A> out[V];
#pragma unroll
        for (int j = 0; j < V; ++j) out[j] = load_as(rows[k * copy + at[j] + w * s.px.by]);
        store_pack<V>((k ? to_dot : to) + i, out);
      }
    }
  } else {
    for (uint32_t w0 = first; w0 < width; w0 += kAhead * step) {
      Patch held[kAhead][kCopies];
#pragma unroll
      for (int u = 0; u < kAhead; ++u) {
        const uint32_t w = w0 + u * step;
        if (w >= width) continue;
        const int64_t i = token0 + (int64_t)w * s.P.by + place * V;
        held[u][0] = *reinterpret_cast<const Patch*>(from + i);
        if constexpr (Dot) held[u][1] = *reinterpret_cast<const Patch*>(from_dot + i);
      }
      if (w0 == first) find_places();
#pragma unroll
      for (int u = 0; u < kAhead; ++u) {
        const uint32_t w = w0 + u * step;
        if (w >= width) continue;
#pragma unroll
        for (int k = 0; k < kCopies; ++k) {
#pragma unroll
          for (int j = 0; j < V; ++j) rows[k * copy + at[j] + w * s.px.by] = store_as<Z>(load_as(held[u][k].v[j]));
        }
      }
    }
    __syncthreads();
#pragma unroll 2
    for (uint32_t i = threadIdx.x; i < all; i += kThreads) {
      uint32_t in;
      const int64_t out = latent_of(i, in);
      *reinterpret_cast<Row*>(to + out) = row_at(in);
      if constexpr (Dot) *reinterpret_cast<Row*>(to_dot + out) = row_at(copy + in);
    }
  }
}

template <bool ToTokens, class A, class Z>
void launch(const void* from, const void* from_dot, void* to, void* to_dot, const Tile& tile, unsigned grid) {
  const A *in = static_cast<const A*>(from), *in_dot = static_cast<const A*>(from_dot);
  Z *out = static_cast<Z*>(to), *out_dot = static_cast<Z*>(to_dot);
  using Latent = std::conditional_t<ToTokens, A, Z>;
  constexpr int64_t V = 16 / (int)sizeof(std::conditional_t<ToTokens, Z, A>), R = 16 / (int)sizeof(Latent);
  const int64_t P = tile.P.by, packs = P / V;
  const auto even = [](const void* p) { return aligned(p, 16); };
  const size_t bytes = (size_t)(P * tile.width) * sizeof(Latent) * (from_dot ? 2 : 1);
  if (P % V == 0 && packs <= kThreads && kThreads % packs == 0 && bytes <= 40 * 1024 && even(ToTokens ? to : from) && even(ToTokens ? to_dot : from_dot)) {
    const void *rows = ToTokens ? from : to, *rows_dot = ToTokens ? from_dot : to_dot;
    const bool wide = tile.X % R == 0 && tile.width * tile.px.by % R == 0 && even(rows) && even(rows_dot);
    const auto go = [&](auto kernel) { kernel<<<grid, kThreads, bytes, stream()>>>(in, in_dot, out, out_dot, tile, Divisor(packs), Divisor(tile.width * tile.px.by / (wide ? R : 1))); };
    if (from_dot) wide ? go(permute_rows<ToTokens, true, true, A, Z>) : go(permute_rows<ToTokens, true, false, A, Z>);
    else wide ? go(permute_rows<ToTokens, false, true, A, Z>) : go(permute_rows<ToTokens, false, false, A, Z>);
    return;
  }
  if (from_dot) permute_tile<ToTokens, true><<<grid, kThreads, 0, stream()>>>(in, in_dot, out, out_dot, tile);
  else permute_tile<ToTokens, false><<<grid, kThreads, 0, stream()>>>(in, in_dot, out, out_dot, tile);
}

void check_patches(const PatchShape& s) {
  size_at_least(s.B, 0, "B");
  size_at_least(s.C, 0, "C");
  if (s.pt < 1 || s.py < 1 || s.px < 1) fail(RCM_E_SHAPE, "patch: want at least 1 in every axis");
  if (s.T < 0 || s.Y < 0 || s.X < 0 || s.T % s.pt || s.Y % s.py || s.X % s.px) {
    fail(RCM_E_SHAPE, "latent: want whole patches of %lld x %lld x %lld, got %lld x %lld x %lld", (long long)s.pt, (long long)s.py, (long long)s.px,
         (long long)s.T, (long long)s.Y, (long long)s.X);
  }
  if (s.order < 0 || s.order > 1) fail(RCM_E_ARG, "order: want 0 or 1, got %d", s.order);
}

}  // namespace

void rcm::permute_patches(const void* from, const void* from_dot, void* to, void* to_dot, bool to_tokens, const PatchShape& s, int32_t from_dtype,
                          int32_t to_dtype) {
  check_patches(s);
  constexpr int64_t kTile = 4096;  // elements of a tile, about
  with_dtype(from_dtype, "x", [&](auto a) {
    with_dtype(to_dtype, "y", [&](auto z) {
      using A = decltype(a);
      using Z = decltype(z);
      if (s.B == 0 || s.C == 0 || s.T == 0 || s.Y == 0 || s.X == 0) return;
      const int64_t V = s.pt * s.py * s.px, P = s.C * V, tx = s.X / s.px, ty = s.Y / s.py, tt = s.T / s.pt;
      if (P >= 0x40000000) fail(RCM_E_SHAPE, "patch: want below 2^30 elements, got %lld", (long long)P);
      const int64_t most = P < kTile ? kTile / P : 1, chunks = ceil_div(tx, most), width = ceil_div(tx, chunks), used = ceil_div(tx, width);
      const Tile tile{Divisor(P), Divisor(V), Divisor(s.C), Divisor(s.pt), Divisor(s.py), Divisor(s.px), Divisor(width * s.px),
                      Divisor(used), Divisor(ty), Divisor(tt), s.T, s.Y, s.X, tx, (uint32_t)s.C, (uint32_t)width, s.order == 1};
      const unsigned grid = grid_size(s.B * tt * ty * used);
      if (to_tokens) launch<true, A, Z>(from, from_dot, to, to_dot, tile, grid);
      else launch<false, A, Z>(from, from_dot, to, to_dot, tile, grid);
    });
  });
}

rcm_status rcm_patchify_fwd(const void* x, void* y, int64_t B, int64_t C, int64_t T, int64_t Y, int64_t X, int64_t pt, int64_t py, int64_t px, int32_t order,
                            int32_t x_dtype, int32_t y_dtype) {
  return gpu_call("patchify_fwd", [&] {
    need(x, "x");
    need(y, "y");
    permute_patches(x, nullptr, y, nullptr, true, {B, C, T, Y, X, pt, py, px, order}, x_dtype, y_dtype);
  });
}

rcm_status rcm_patchify_jvp(const void* x, const void* x_dot, void* y, void* y_dot, int64_t B, int64_t C, int64_t T, int64_t Y, int64_t X, int64_t pt,
                            int64_t py, int64_t px, int32_t order, int32_t x_dtype, int32_t y_dtype) {
  return gpu_call("patchify_jvp", [&] {
    need(x, "x");
    need(x_dot, "x_dot");
    need(y, "y");
    need(y_dot, "y_dot");
    permute_patches(x, x_dot, y, y_dot, true, {B, C, T, Y, X, pt, py, px, order}, x_dtype, y_dtype);
  });
}

rcm_status rcm_patchify_vjp(const void* y_bar, void* x_bar, int64_t B, int64_t C, int64_t T, int64_t Y, int64_t X, int64_t pt, int64_t py, int64_t px,
                            int32_t order, int32_t x_dtype, int32_t y_dtype) {
  return gpu_call("patchify_vjp", [&] {
    need(y_bar, "y_bar");
    need(x_bar, "x_bar");
    permute_patches(y_bar, nullptr, x_bar, nullptr, false, {B, C, T, Y, X, pt, py, px, order}, y_dtype, x_dtype);
  });
}
