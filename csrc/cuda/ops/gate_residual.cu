#include "elementwise.cuh"
#include "cuda/rows/slots.cuh"
#include "shared/ops/gate_residual.h"

namespace rcm::gate_residual {
namespace {

// ---- layout -------------------------------------------------------------------------------------------------------
// A thread owns a pack of columns and walks rows of one sample, so that it reads the gate once. blockIdx.x covers
// samples, chunks of rows and groups of columns (the last fastest); threadIdx.x packs, threadIdx.y rows.
struct Walk {
  int64_t L, D, rows;  // rows: per chunk
  unsigned groups, chunks;
};

template <int V>
dim3 block_for(int64_t D) {
  const int64_t packs = ceil_div(D, V);
  if (packs < 32) {
    unsigned width = 1;
    while (width < packs) width *= 2;
    return dim3(width, kThreads / width);
  }
  const int64_t groups = ceil_div(packs, kThreads), width = ceil_div(ceil_div(packs, groups), 32) * 32;
  return dim3((unsigned)width, (unsigned)(kThreads / width));
}

struct Place {
  int64_t b, column, first, last;
  unsigned slot;  // index over samples and chunks
};
template <int V>
__device__ inline Place place(const Walk& w) {
  Place p;
  p.slot = blockIdx.x / w.groups;
  p.b = p.slot / w.chunks;
  p.column = ((int64_t)(blockIdx.x % w.groups) * blockDim.x + threadIdx.x) * V;
  p.first = (int64_t)(p.slot % w.chunks) * w.rows;
  p.last = p.first + w.rows < w.L ? p.first + w.rows : w.L;
  return p;
}

// A null gate reads as `otherwise`.
template <int V, class C>
__device__ inline void load_gate(const C* gate, int64_t i, C otherwise, bool vec, C (&out)[V]) {
  const Pack<C, V> v = fetch_or_zero<V>(gate, i, vec);
#pragma unroll
  for (int j = 0; j < V; ++j) out[j] = gate ? v.v[j] : otherwise;
}

// ---- y = x + gate h -----------------------------------------------------------------------------------------------
template <class X, class H>
struct Mix {
  using C = compute_t<X>;
  const X *x, *x_dot;
  const H *h, *h_dot;
  const C *gate, *gate_dot;
  X *y, *y_dot;
  int64_t stride;
  bool gate_vec;
};

template <int V, int U, bool Jvp, class X, class H>
__global__ void __launch_bounds__(kThreads) mix_rows(Mix<X, H> m, Walk w) {
  await_queued();
  using C = compute_t<X>;
  const Place p = place<V>(w);
  if (p.column >= w.D) return;
  C gate[V], gate_dot[V];
  load_gate(m.gate, p.b * m.stride + p.column, (C)1, m.gate_vec, gate);
  if constexpr (Jvp) load_gate(m.gate_dot, p.b * m.stride + p.column, (C)0, m.gate_vec, gate_dot);
  for (int64_t l = p.first + threadIdx.y; l < p.last; l += U * blockDim.y) {
    Raw<X, V> x[U], x_dot[U];
    Raw<H, V> h[U], h_dot[U];
#pragma unroll
    for (int u = 0; u < U; ++u) {
      const int64_t row = l + u * blockDim.y, i = (p.b * w.L + row) * w.D + p.column;
      if (row >= p.last) continue;
      x[u] = raw_or_zero<V>(m.x, i);
      h[u] = load_raw<V>(m.h + i);
      if constexpr (Jvp) {
        x_dot[u] = raw_or_zero<V>(m.x_dot, i);
        h_dot[u] = raw_or_zero<V>(m.h_dot, i);
      }
    }
#pragma unroll
    for (int u = 0; u < U; ++u) {
      const int64_t row = l + u * blockDim.y, i = (p.b * w.L + row) * w.D + p.column;
      if (row >= p.last) continue;
      C out[V], in[V];
      unpack<V>(x[u], out);
      unpack<V>(h[u], in);
#pragma unroll
      for (int j = 0; j < V; ++j) out[j] = fma(gate[j], in[j], out[j]);
      store_pack<V>(m.y + i, out);
      if constexpr (Jvp) {
        C in_dot[V];
        unpack<V>(x_dot[u], out);
        unpack<V>(h_dot[u], in_dot);
#pragma unroll
        for (int j = 0; j < V; ++j) out[j] = fma(gate_dot[j], in[j], fma(gate[j], in_dot[j], out[j]));
        store_pack<V>(m.y_dot + i, out);
      }
    }
  }
}

template <int V, bool Jvp, class X, class H>
void launch_mix(const Mix<X, H>& m, const Sizes& z) {
  constexpr int U = Jvp ? 2 : 4;
  const dim3 block = block_for<V>(z.D);
  const int64_t rows = U * (int64_t)block.y, groups = ceil_div(z.D, (int64_t)V * block.x), chunks = ceil_div(z.L, rows);
  const unsigned grid = grid_size(z.B * groups * chunks);
  queue_kernel(mix_rows<V, U, Jvp, X, H>, grid, block, 0, m, Walk{z.L, z.D, rows, (unsigned)groups, (unsigned)chunks});
}

template <int V, class C>
bool gate_packs(std::initializer_list<const void*> gates, int64_t stride) {
  return pack_aligned<V, C>(gates) && stride * (int64_t)sizeof(C) % 16 == 0;
}

template <bool Jvp, class X, class H>
void mix(Mix<X, H> m, const Sizes& z) {
  using C = compute_t<X>;
  constexpr int V = kPack<X, H>;
  if (z.B == 0 || z.L == 0 || z.D == 0) return;
  m.stride = z.stride;
  m.gate_vec = gate_packs<V, C>({m.gate, m.gate_dot}, z.stride);
  if (z.D % V == 0 && pack_aligned<V, X>({m.x, m.x_dot, m.y, m.y_dot}) && pack_aligned<V, H>({m.h, m.h_dot}))
    launch_mix<V, Jvp>(m, z);
  else launch_mix<1, Jvp>(m, z);
}

// ---- vjp ----------------------------------------------------------------------------------------------------------
// h_bar, and the chunk's part of gate_bar in partial [sample, chunk][threadIdx.y][D], in one pass.
template <int V, class X, class H, class C>
__global__ void __launch_bounds__(kThreads)
    back_rows(const X* y_bar, const H* h, const C* gate, H* h_bar, C* partial, int64_t stride, bool gate_vec, Walk w) {
  await_queued();
  constexpr int U = 4;
  const Place p = place<V>(w);
  if (p.column >= w.D) return;
  C g[V], sum[V] = {};
  load_gate(gate, p.b * stride + p.column, (C)1, gate_vec, g);
  for (int64_t l = p.first + threadIdx.y; l < p.last; l += U * blockDim.y) {
    Raw<X, V> bar[U];
    Raw<H, V> v[U];
#pragma unroll
    for (int u = 0; u < U; ++u) {
      const int64_t row = l + u * blockDim.y, i = (p.b * w.L + row) * w.D + p.column;
      if (row >= p.last) continue;
      bar[u] = load_raw<V>(y_bar + i);
      if (partial) v[u] = load_raw<V>(h + i);
    }
#pragma unroll
    for (int u = 0; u < U; ++u) {
      const int64_t row = l + u * blockDim.y, i = (p.b * w.L + row) * w.D + p.column;
      if (row >= p.last) continue;
      C out[V], in[V];
      unpack<V>(bar[u], in);
#pragma unroll
      for (int j = 0; j < V; ++j) out[j] = g[j] * in[j];
      if (h_bar) store_pack<V>(h_bar + i, out);
      if (partial) {
        C other[V];
        unpack<V>(v[u], other);
#pragma unroll
        for (int j = 0; j < V; ++j) sum[j] = fma(in[j], other[j], sum[j]);
      }
    }
  }
  if (partial) {
    C* into = partial + ((int64_t)p.slot * blockDim.y + threadIdx.y) * w.D + p.column;
#pragma unroll
    for (int j = 0; j < V; ++j) into[j] = sum[j];
  }
}

template <int V, class X, class H, class C>
void launch_back(const X* y_bar, const H* h, const C* gate, H* h_bar, C* gate_bar, bool gate_vec, const Sizes& z) {
  const dim3 block = block_for<V>(z.D);
  const int64_t groups = ceil_div(z.D, (int64_t)V * block.x), step = 4 * (int64_t)block.y;
  // About a thousand threads per processor, each with many rows, to keep partial sums few; without sums, one step per
  // block.
  const int64_t room = (int64_t)gpu().sms * (1024 / (block.x * block.y)) / (z.B * groups), most = ceil_div(z.L, step);
  const int64_t wanted = gate_bar == nullptr ? most : room < 1 ? 1 : room < most ? room : most;
  const int64_t rows = ceil_div(ceil_div(z.L, wanted), step) * step, chunks = ceil_div(z.L, rows),
                slots = chunks * block.y;
  const Workspace partial(gate_bar ? (size_t)(z.B * slots * z.D) * sizeof(C) : 0);
  C* sums = gate_bar ? partial.as<C>() : nullptr;
  queue_kernel(back_rows<V, X, H, C>, grid_size(z.B * groups * chunks), block, 0, y_bar, h, gate, h_bar, sums, z.stride,
               gate_vec, Walk{z.L, z.D, rows, (unsigned)groups, (unsigned)chunks});
  if (gate_bar != nullptr) add_slots<C>(sums, z.B, slots, z.D, 1, gate_bar, nullptr, z.stride);
}

}  // namespace

void forward(const Forward& a, const Sizes& z) {
  with_dtypes(z.x_dtype, z.h_dtype, "x_dtype, h_dtype", [&](auto x_type, auto h_type) {
    using X = decltype(x_type);
    using H = decltype(h_type);
    using C = compute_t<X>;
    const Mix<X, H> m{static_cast<const X*>(a.x),
                      static_cast<const X*>(a.x_dot),
                      static_cast<const H*>(a.h),
                      static_cast<const H*>(a.h_dot),
                      static_cast<const C*>(a.gate),
                      static_cast<const C*>(a.gate_dot),
                      static_cast<X*>(a.y),
                      static_cast<X*>(a.y_dot),
                      0,
                      false};
    if (a.y_dot) mix<true>(m, z);
    else mix<false>(m, z);
  });
}

void backward(const Backward& a, const Sizes& z) {
  with_dtypes(z.x_dtype, z.h_dtype, "x_dtype, h_dtype", [&](auto x_type, auto h_type) {
    using X = decltype(x_type);
    using H = decltype(h_type);
    using C = compute_t<X>;
    constexpr int V = kPack<X, H>;
    if ((a.h_bar == nullptr && a.gate_bar == nullptr) || z.B == 0 || z.L == 0 || z.D == 0) return;
    const X* y_bar = static_cast<const X*>(a.y_bar);
    const H* h = static_cast<const H*>(a.h);
    const C* gate = static_cast<const C*>(a.gate);
    H* h_bar = static_cast<H*>(a.h_bar);
    C* gate_bar = static_cast<C*>(a.gate_bar);
    const bool gate_vec = gate_packs<V, C>({gate}, z.stride);
    const bool vec = z.D % V == 0 && pack_aligned<V, X>({y_bar}) && pack_aligned<V, H>({h, h_bar});
    if (vec) launch_back<V>(y_bar, h, gate, h_bar, gate_bar, gate_vec, z);
    else launch_back<1>(y_bar, h, gate, h_bar, gate_bar, gate_vec, z);
  });
}

}  // namespace rcm::gate_residual
