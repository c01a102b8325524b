// Kernels of layer_norm and ada_layer_norm, for any factor and summand per column.
//
// Idea: a block walks rows and loads the next row before it reduces this one, so that memory never waits for a
// reduction.
// Tile: a row is spread over threads of 16 elements each, in registers (forward) or in shared memory (backward, where
// registers hold the column sums).
#pragma once
#include "norm.cuh"

namespace rcm {

// ---- layer norms --------------------------------------------------------------------------------------------------
// Per-thread storage in shared memory for parameters that would not fit in registers. No barrier: no other thread reads
// it.
template <int V>
struct ThreadStore {
  float4* base;
  int pitch;

  static constexpr size_t bytes(int threads, int packs) { return (size_t)threads * packs * V * sizeof(float); }

  __device__ explicit ThreadStore(unsigned char* memory) {
    pitch = (int)(blockDim.x * blockDim.y);
    base = reinterpret_cast<float4*>(memory) + threadIdx.y * blockDim.x + threadIdx.x;
  }
  __device__ void put(int pack, const float (&v)[V]) {
#pragma unroll
    for (int h = 0; h < V / 4; ++h)
      base[(pack * (V / 4) + h) * pitch] = make_float4(v[4 * h], v[4 * h + 1], v[4 * h + 2], v[4 * h + 3]);
  }
  __device__ void get(int pack, float (&v)[V]) const {
#pragma unroll
    for (int h = 0; h < V / 4; ++h) {
      const float4 four = base[(pack * (V / 4) + h) * pitch];
      v[4 * h] = four.x, v[4 * h + 1] = four.y, v[4 * h + 2] = four.z, v[4 * h + 3] = four.w;
    }
  }
};

// Mean and sum of squared deviations of a row, merged from those of its parts; with a tangent also the mean of x_dot
// and the sum of products of deviations. Equal parts are merged in pairs (Chan, Golub, LeVeque 1983), so one exchange
// gives both without cancellation.
template <bool Jvp, class C>
struct Moments {
  C mean = 0, square = 0, mean_dot = 0, cross = 0;

  // Merges a part of the same size; `half` is half that size. Symmetric: both partners get the same bits.
  __device__ void merge(const Moments& o, C half) {
    const C deviation = o.mean - mean;
    square = fma(mul_exact(deviation, deviation), half, square + o.square);
    mean = mul_exact(mean + o.mean, (C)0.5);
    if constexpr (Jvp) {
      cross = fma(mul_exact(deviation, o.mean_dot - mean_dot), half, cross + o.cross);
      mean_dot = (mean_dot + o.mean_dot) * (C)0.5;
    }
  }
  __device__ void merge_warp(C half) {
#pragma unroll
    for (int o = 1; o < 32; o <<= 1, half *= 2) {
      Moments other;
      other.mean = __shfl_xor_sync(0xffffffffu, mean, o);
      other.square = __shfl_xor_sync(0xffffffffu, square, o);
      if constexpr (Jvp) {
        other.mean_dot = __shfl_xor_sync(0xffffffffu, mean_dot, o);
        other.cross = __shfl_xor_sync(0xffffffffu, cross, o);
      }
      merge(other, half);
    }
  }
  // Merges the block's warps of `size` elements each. `shared` holds one entry per warp; reusable after the next
  // barrier.
  __device__ void merge_block(Moments* shared, C size) {
    const int warps = (int)(blockDim.x >> 5);
    if (warps == 1) return;
    if ((threadIdx.x & 31) == 0) shared[threadIdx.x >> 5] = *this;
    __syncthreads();
    C m = 0, m_dot = 0, s = 0, c = 0;
#pragma unroll 4
    for (int w = 0; w < warps; ++w) {
      m += shared[w].mean;
      if constexpr (Jvp) m_dot += shared[w].mean_dot;
    }
    const C part = (C)1 / (C)warps;
    m = mul_exact(m, part);
    if constexpr (Jvp) m_dot *= part;
#pragma unroll 4
    for (int w = 0; w < warps; ++w) {
      const C deviation = shared[w].mean - m;
      s += fma(mul_exact(deviation, deviation), size, shared[w].square);
      if constexpr (Jvp) c += fma(mul_exact(deviation, shared[w].mean_dot - m_dot), size, shared[w].cross);
    }
    mean = m, square = s, mean_dot = m_dot, cross = c;
  }
};

// `Mod` gives factor and summand of (x - mean) rstd per column, and their tangents. They are kept as long as they are
// valid, in registers or, with a tangent, in shared memory; blocks too large for either (Keep false) read them for
// every row.
template <class X, class Y, bool Jvp, bool Keep, class Mod, class C>
__global__ void __launch_bounds__(!Keep ? kRowThreads
                                  : Jvp ? kTangentThreads
                                        : kKeepThreads)
    layer_rows(const X* x, const X* x_dot, Mod mod, Y* y, Y* y_dot, C* mean, C* rstd, int64_t M, int D, C inv, C eps,
               bool dot_vec) {
  await_queued();
  constexpr int V = kRowPack<X, Y>, P = kRowShare / V;
  constexpr int kParams = Mod::kTangent ? 4 : 2;
  extern __shared__ __align__(16) unsigned char kept[];
  __shared__ C shared[2][64];
  __shared__ Moments<Jvp, C> parts[2][32];  // alternate between rows
  const int64_t step = (int64_t)gridDim.x * blockDim.y;
  const bool early = Jvp && x_dot && dot_vec, even = D == kRowShare * (int)blockDim.x;
  Raw<X, V> next[P], next_dot[Jvp ? P : 1];
  const auto column = [&](int k) { return (int)(k * blockDim.x + threadIdx.x) * V; };
  const auto fetch = [&](int64_t row) {
#pragma unroll
    for (int k = 0; k < P; ++k) {
      if (column(k) >= D) continue;
      next[k] = fetch_once<V>(x + row * D + column(k));
      if constexpr (Jvp) {
        if (early) next_dot[k] = fetch_once<V>(x_dot + row * D + column(k));
      }
    }
  };
  constexpr bool Registers = Keep && !Jvp, Shared = Keep && Jvp;
  constexpr int W = Registers ? P : 1;
  C w[W][V], b[W][V], w_dot[V], b_dot[V];
  ThreadStore<V> store(kept);
  const auto parameters = [&](int64_t at, int k) {
    mod.template factor<V>(at, w[k]);
    mod.template summand<V>(at, b[k]);
    if constexpr (Jvp && Mod::kTangent) mod.template tangents<V>(at, w_dot, b_dot);
  };
  int64_t r = (int64_t)blockIdx.x * blockDim.y + threadIdx.y, at = 0, end = 0;
  int turn = 0;
  if (r < M) fetch(r);
  for (; r < M; r += step) {
    // Parameters
    if (r >= end) {
      at = mod.row(r);
      end = mod.end(r);
      if constexpr (Keep) {
#pragma unroll
        for (int k = 0; k < P; ++k) {
          if (column(k) >= D) continue;
          parameters(at + column(k), Registers ? k : 0);
          if constexpr (Shared) {
            store.put(kParams * k, w[0]);
            store.put(kParams * k + 1, b[0]);
            if constexpr (Mod::kTangent) {
              store.put(kParams * k + 2, w_dot);
              store.put(kParams * k + 3, b_dot);
            }
          }
        }
      }
    }

    // Row
    C v[P][V], d[Jvp ? P : 1][V];
#pragma unroll
    for (int k = 0; k < P; ++k) {
      if (column(k) >= D) continue;
      unpack<V>(next[k], v[k]);
      if constexpr (Jvp) {
#pragma unroll
        for (int j = 0; j < V; ++j) d[k][j] = 0;
        if (early) unpack<V>(next_dot[k], d[k]);
        else if (x_dot) load_values<V>(x_dot + r * D + column(k), false, d[k]);
      }
    }
    if (r + step < M) fetch(r + step);

    // Statistics
    Moments<Jvp, C> row;
    C sum[Jvp ? 2 : 1] = {}, square[Jvp ? 2 : 1] = {};
#pragma unroll
    for (int k = 0; k < P; ++k) {
      if (column(k) >= D) continue;
#pragma unroll
      for (int j = 0; j < V; ++j) {
        sum[0] += v[k][j];
        if constexpr (Jvp) sum[1] += d[k][j];
      }
    }
    // Deviations from the mean of this thread's elements or, where threads hold unequal shares, from that of the row.
    const C share = even ? (C)1 / kRowShare : inv;
    if (!even) block_sum_once(sum, shared[0]);
    row.mean = mul_exact(sum[0], share);
    if constexpr (Jvp) row.mean_dot = sum[1] * share;
#pragma unroll
    for (int k = 0; k < P; ++k) {
      if (column(k) >= D) continue;
#pragma unroll
      for (int j = 0; j < V; ++j) {
        const C deviation = v[k][j] - row.mean;
        square[0] = fma(deviation, deviation, square[0]);
        if constexpr (Jvp) square[1] = fma(deviation, d[k][j] - row.mean_dot, square[1]);
      }
    }
    if (!even) block_sum_once(square, shared[1]);
    row.square = square[0];
    if constexpr (Jvp) row.cross = square[1];
    if (even) {
      row.merge_warp((C)kRowShare / 2);
      row.merge_block(parts[turn ^= 1], (C)(32 * kRowShare));
    }
    const C q = inv_sqrt(fma(row.square, inv, eps));
    if (threadIdx.x == 0) {
      mean[r] = row.mean;
      rstd[r] = q;
    }

    // Outputs
    const C along_x = Jvp ? row.cross * inv * q : (C)0;
#pragma unroll
    for (int k = 0; k < P; ++k) {
      if (column(k) >= D) continue;
      const int64_t i = r * D + column(k);
      const int n = Registers ? k : 0;
      if constexpr (!Keep) parameters(at + ptx::opaque(column(k)), 0);
      if constexpr (Shared) {
        store.get(kParams * k, w[0]);
        store.get(kParams * k + 1, b[0]);
      }
      C out[V];
#pragma unroll
      for (int j = 0; j < V; ++j) {
        v[k][j] = mul_exact(v[k][j] - row.mean, q);
        out[j] = fma(v[k][j], w[n][j], b[n][j]);
      }
      store_pack<V>(y + i, out);
      if constexpr (Jvp) {
#pragma unroll
        for (int j = 0; j < V; ++j) out[j] = q * (d[k][j] - row.mean_dot - v[k][j] * along_x) * w[n][j];
        if constexpr (Mod::kTangent) {
          if constexpr (Shared) {
            store.get(kParams * k + 2, w_dot);
            store.get(kParams * k + 3, b_dot);
          }
#pragma unroll
          for (int j = 0; j < V; ++j) out[j] += fma(v[k][j], w_dot[j], b_dot[j]);
        }
        store_values<V>(y_dot + i, dot_vec, out);
      }
    }
  }
}

// Any width and dtype: one block per row, which is read from memory in every pass.
template <class X, class Y, bool Jvp, class Mod, class C>
__global__ void __launch_bounds__(kAnyThreads)
    layer_any(const X* x, const X* x_dot, Mod mod, Y* y, Y* y_dot, C* mean, C* rstd, int64_t D, C inv, C eps) {
  await_queued();
  __shared__ C shared[64];
  const int64_t r = blockIdx.x;
  x += r * D;
  y += r * D;
  if constexpr (Jvp) y_dot += r * D;
  const X* dots = Jvp && x_dot ? x_dot + r * D : nullptr;
  C sum[Jvp ? 2 : 1] = {}, square[Jvp ? 2 : 1] = {};
  for (int64_t i = threadIdx.x; i < D; i += kAnyThreads) {
    sum[0] += (C)load_as(x[i]);
    if constexpr (Jvp) sum[1] += dots ? (C)load_as(dots[i]) : (C)0;
  }
  block_sum(sum, shared);
  const C m = mul_exact(sum[0], inv);
  for (int64_t i = threadIdx.x; i < D; i += kAnyThreads) {
    const C v = (C)load_as(x[i]) - m;
    square[0] = fma(v, v, square[0]);
    if constexpr (Jvp) square[1] += dots ? v * ((C)load_as(dots[i]) - sum[1] * inv) : (C)0;
  }
  block_sum(square, shared);
  const C q = inv_sqrt(fma(square[0], inv, eps));
  if (threadIdx.x == 0) {
    mean[r] = m;
    rstd[r] = q;
  }
  const auto at = mod.row(r);
  for (int64_t i = threadIdx.x; i < D; i += kAnyThreads) {
    C w[1], b[1];
    mod.template factor<1>(at + i, w);
    mod.template summand<1>(at + i, b);
    const C h[1] = {mul_exact((C)load_as(x[i]) - m, q)};
    y[i] = store_as<Y>(fma(h[0], w[0], b[0]));
    if constexpr (Jvp) {
      C out[1] = {dots ? q * ((C)load_as(dots[i]) - sum[1] * inv - h[0] * (square[1] * inv * q)) * w[0] : (C)0};
      if constexpr (Mod::kTangent) {
        C w_dot[1], b_dot[1];
        mod.template tangents<1>(at + i, w_dot, b_dot);
        out[0] += fma(h[0], w_dot[0], b_dot[0]);
      }
      y_dot[i] = store_as<Y>(out[0]);
    }
  }
}

// `slots` blocks per sample walk its rows; a block leaves its column sums in its slot of partial
// [samples][slots][2][D].
template <class X, class Y, class Mod, class C>
__global__ void __launch_bounds__(kBackThreads)
    layer_rows_back(const X* x, const Y* y_bar, Mod mod, const C* mean, const C* rstd, X* x_bar, C* partial, int64_t L,
                    int D, int64_t slots, C inv, bool out_vec) {
  await_queued();
  constexpr int V = kRowPack<X, Y>, P = kRowShare / V;
  extern __shared__ __align__(16) unsigned char staged[];
  __shared__ C shared[2][kBackRows][64];  // alternate between rows
  RowPipe<X, Y, V> pipe(staged);
  ThreadStore<V> store(staged + RowPipe<X, Y, V>::bytes(blockDim));
  const int64_t sample = blockIdx.x / slots, first = sample * L, step = slots * blockDim.y;
  const auto modulation = mod.row(first);
  int64_t l = blockIdx.x % slots * blockDim.y + threadIdx.y;
  int at[P];
  C dw[P][V] = {}, db[P][V] = {};
#pragma unroll
  for (int k = 0, i = (int)threadIdx.x * V; k < P; ++k, i += (int)blockDim.x * V) {
    at[k] = i < D ? i : -1;
    if (i >= D) continue;
    C w[V];
    mod.template factor<V>(modulation + i, w);
    store.put(k, w);
  }
#pragma unroll
  for (int s = 0; s < kRowStages - 1; ++s) {
    const int64_t ahead = l + s * step;
    pipe.issue(s, ahead < L, x + (first + ahead) * D, y_bar + (first + ahead) * D, at);
  }
  C m = 0, q = 0;
  int turn = 0;
  if (l < L) m = mean[first + l], q = rstd[first + l];
  for (int stage = 0; l < L; l += step, stage = stage + 1 == kRowStages ? 0 : stage + 1) {
    const int64_t r = first + l, ahead = l + (kRowStages - 1) * step;
    pipe.issue(stage == 0 ? kRowStages - 1 : stage - 1, ahead < L, x + (first + ahead) * D, y_bar + (first + ahead) * D,
               at);
    const C m_next = l + step < L ? mean[r + step] : (C)0, q_next = l + step < L ? rstd[r + step] : (C)0;
    pipe.wait();
    // Sums; both passes read the staged row, because registers hold the column sums.
    C h[V], g[V], w[V], sum[2] = {};
#pragma unroll
    for (int k = 0; k < P; ++k) {
      if (at[k] < 0) continue;
      store.get(k, w);
      load_pack<V>(pipe.x(stage, k), h);
      load_pack<V>(pipe.y(stage, k), g);
#pragma unroll
      for (int j = 0; j < V; ++j) {
        h[j] = (h[j] - m) * q;
        db[k][j] += g[j];
        dw[k][j] += g[j] * h[j];
        g[j] *= w[j];
        sum[0] += g[j];
        sum[1] += g[j] * h[j];
      }
    }
    // Cotangent of the row
    if (x_bar) {
      row_sum_once<true>(sum, shared[turn ^= 1][threadIdx.y]);
#pragma unroll
      for (int k = 0; k < P; ++k) {
        if (at[k] < 0) continue;
        store.get(k, w);
        load_pack<V>(pipe.x(stage, k), h);
        load_pack<V>(pipe.y(stage, k), g);
#pragma unroll
        for (int j = 0; j < V; ++j) g[j] = q * (g[j] * w[j] - sum[0] * inv - (h[j] - m) * q * (sum[1] * inv));
        store_values<V>(x_bar + r * D + at[k], out_vec, g);
      }
    }
    m = m_next, q = q_next;
  }

  // Column sums
  if (!partial) return;
  C* fold = reinterpret_cast<C*>(staged);  // all staged rows have been read
  __syncthreads();
#pragma unroll
  for (int k = 0; k < P; ++k) {
    if (at[k] < 0) continue;
    store_pack<V>(fold + (int)threadIdx.y * 2 * D + at[k], dw[k]);
    store_pack<V>(fold + (int)threadIdx.y * 2 * D + D + at[k], db[k]);
  }
  fold_columns(fold, (int)blockDim.y * 2 * D, 2 * D, partial + (int64_t)blockIdx.x * 2 * D);
}

template <class X, class Y, class Mod, class C>
__global__ void __launch_bounds__(kAnyThreads)
    layer_any_back(const X* x, const Y* y_bar, Mod mod, const C* mean, const C* rstd, X* x_bar, C* partial, int64_t L,
                   int64_t D, int64_t slots, C inv) {
  await_queued();
  __shared__ C shared[64];
  const int64_t sample = blockIdx.x / slots, start = blockIdx.x % slots;
  const auto at = mod.row(sample * L);
  if (partial) partial += (int64_t)blockIdx.x * 2 * D;
  for (int64_t l = start; l < L; l += slots) {
    const int64_t r = sample * L + l;
    const C m = mean[r], q = rstd[r];
    C sum[2] = {};
    for (int64_t i = threadIdx.x; i < D; i += kAnyThreads) {
      C w[1];
      mod.template factor<1>(at + i, w);
      const C bar = (C)load_as(y_bar[r * D + i]), h = ((C)load_as(x[r * D + i]) - m) * q;
      sum[0] += bar * w[0];
      sum[1] += bar * w[0] * h;
      if (partial) {
        partial[i] = (l == start ? (C)0 : partial[i]) + bar * h;
        partial[D + i] = (l == start ? (C)0 : partial[D + i]) + bar;
      }
    }
    if (!x_bar) continue;
    block_sum(sum, shared);
    for (int64_t i = threadIdx.x; i < D; i += kAnyThreads) {
      C w[1];
      mod.template factor<1>(at + i, w);
      const C g = (C)load_as(y_bar[r * D + i]) * w[0], h = ((C)load_as(x[r * D + i]) - m) * q;
      x_bar[r * D + i] = store_as<X>(q * (g - sum[0] * inv - h * (sum[1] * inv)));
    }
  }
}

// ---- layer norms, host side ---------------------------------------------------------------------------------------
// The choice of kernel depends on x, y and D alone, so that _fwd and _jvp make the same one.
template <bool Jvp, class X, class Y, class Mod, class C>
void layer_forward(const X* x, const X* x_dot, Mod mod, Y* y, Y* y_dot, C* mean, C* rstd, int64_t M, int64_t D,
                   double eps) {
  const C inv = (C)(1.0 / (double)D);
  if constexpr (!std::is_same<X, double>::value) {
    if (row_fits(x, y, D)) {
      const dim3 block = row_block(D);
      constexpr int V = kRowPack<X, Y>, kParams = Mod::kTangent ? 4 : 2;
      const auto go = [&](auto kernel, size_t bytes) {
        const bool dot_vec = aligned(x_dot, 16) && aligned(y_dot, 16);
        queue_kernel(kernel, blocks_for(kernel, block, bytes, M), block, bytes, x, x_dot, mod, y, y_dot, mean, rstd, M,
                     (int)D, inv, (C)eps, dot_vec);
      };
      const int threads = (int)(block.x * block.y);
      const size_t bytes = Jvp ? ThreadStore<V>::bytes(threads, kParams * kRowShare / V) : 0;
      if (threads <= kKeepThreads && shared_fits(bytes)) go(layer_rows<X, Y, Jvp, true, Mod, C>, bytes);
      else go(layer_rows<X, Y, Jvp, false, Mod, C>, 0);
      return;
    }
  }
  queue_kernel(layer_any<X, Y, Jvp, Mod, C>, grid_of(M), kAnyThreads, 0, x, x_dot, mod, y, y_dot, mean, rstd, D, inv,
               (C)eps);
}

// w_bar (or scale_bar) += sum of y_bar xhat, b_bar (or shift_bar) += sum of y_bar, over the rows of each sample.
template <class X, class Y, class Mod, class C>
void layer_backward(const X* x, const Y* y_bar, Mod mod, const C* mean, const C* rstd, X* x_bar, C* w_bar, C* b_bar,
                    int64_t B, int64_t L, int64_t D, int64_t stride) {
  const C inv = (C)(1.0 / (double)D);
  const bool sums = w_bar || b_bar;
  if (!sums && !x_bar) return;
  auto launch = [&](auto kernel, dim3 block, size_t bytes, auto width, auto... last) {
    const int64_t slots = slots_for(kernel, block, bytes, B, L);
    Workspace partial(sums ? (size_t)(B * slots * 2 * D) * sizeof(C) : 0);
    C* into = sums ? partial.as<C>() : nullptr;
    queue_kernel(kernel, grid_of(B * slots), block, bytes, x, y_bar, mod, mean, rstd, x_bar, into, L, width, slots, inv,
                 last...);
    if (sums) add_slots(into, B, slots, D, 2, w_bar, b_bar, stride);
  };
  if constexpr (!std::is_same<X, double>::value) {
    constexpr int V = kRowPack<X, Y>;
    const auto bytes = [](dim3 block) {
      return RowPipe<X, Y, V>::bytes(block) + ThreadStore<V>::bytes((int)(block.x * block.y), kRowShare / V);
    };
    if (row_fits(x, y_bar, D)) {
      const dim3 block = back_block(D, bytes);
      if (shared_fits(bytes(block)))
        return launch(layer_rows_back<X, Y, Mod, C>, block, bytes(block), (int)D, aligned(x_bar, 16));
    }
  }
  launch(layer_any_back<X, Y, Mod, C>, dim3(kAnyThreads), 0, D);
}

}  // namespace rcm
