// rms_norm_rope: the RMS norm over rows or heads, with the rotary embedding in the same pass.
//
// Idea: a block walks rows; the next row is loaded before this one is reduced (with a tangent two rows, staged in
// shared memory).
// Tile: a thread holds pairs of packs, one pack in each half of a head, so that both rope layouts rotate within a
// thread.
#include "cuda/rows/norm.cuh"
#include "shared/ops/rms_norm_rope.h"

namespace rcm::rms_norm_rope {
namespace {

// Arguments common to all kernels; `vec`: w and the tables may be read as packs.
template <class C>
struct Args {
  const void* w;
  const C *cos, *sin;
  int64_t M, L, D, K, group;
  int32_t rope, w_dtype;
  bool vec;
  C inv, eps;
  __device__ int64_t token(int64_t r) const { return (r | L) >> 32 ? r % L : (int64_t)((uint32_t)r % (uint32_t)L); }
};

template <class C>
Args<C> args(const void* w, const void* cos, const void* sin, double eps, const Sizes& z) {
  const bool vec = aligned(w, 16) && aligned(cos, 16) && aligned(sin, 16);
  const C *c = static_cast<const C*>(cos), *s = static_cast<const C*>(sin);
  return {w, c, s, z.B * z.L, z.L, z.D, z.K, z.group, z.rope, z.w_dtype, vec, (C)(1.0 / (double)z.group), (C)eps};
}

template <class C>
__device__ void rotate(C& a, C& b, C cos, C sin) {
  const C first = fma(a, cos, -mul_exact(b, sin));
  b = fma(a, sin, mul_exact(b, cos));
  a = first;
}

// ---- fast path: pairs of packs, one in each half of a head ---------------------------------------------------------
// The norm's group is the row, or a head held by K / 2V neighbouring lanes.
template <class X, class Y>
bool units_fit(const X* x, const Y* y, const Sizes& z) {
  constexpr int V = kRowPack<X, Y>;
  if (!row_fits(x, y, z.D) || z.K % (2 * V) != 0) return false;
  const int64_t lanes = z.K / (2 * V);
  return z.group == z.D || (z.group == z.K && lanes <= 32 && (lanes & (lanes - 1)) == 0);
}

// A unit is a pair of packs. For unit k of a thread: columns at[2k] and at[2k+1] of the row (-1: absent), its column
// within the half head, and its head.
template <int V, class C>
struct Units {
  static constexpr int P = kRowShare / V, U = P / 2;
  int at[P], in_head[U], head[U], half;
  bool whole;  // the group is the row

  __device__ explicit Units(const Args<C>& t) {
    half = (int)t.K / 2;
    whole = t.group == t.D;
    const int per = half / V;
#pragma unroll
    for (int k = 0; k < U; ++k) {
      const int u = (int)(k * blockDim.x + threadIdx.x);
      head[k] = u / per;
      in_head[k] = (u - head[k] * per) * V;
      at[2 * k] = head[k] * (int)t.K + in_head[k];
      at[2 * k + 1] = at[2 * k] + half;
      if (at[2 * k] >= (int)t.D) at[2 * k] = at[2 * k + 1] = -1;
    }
  }
  __device__ bool present(int k) const { return at[2 * k] >= 0; }
  // w at pack p.
  __device__ void weights(const Args<C>& t, int p, C (&out)[V]) const {
    load_param<V>(t.w, ptx::opaque(whole ? at[p] : in_head[p / 2] + p % 2 * half), t.w_dtype, t.vec, out);
  }
  // V entries of a table (cos or sin) for unit k; `row` is the token's row of the table.
  __device__ void table(const Args<C>& t, const C* row, int k, C (&out)[V]) const {
    if (t.rope == 2) return load_values<V>(row + ptx::opaque(in_head[k]), t.vec, out);
    C part[V / 2];
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      load_values<V / 2>(row + ptx::opaque(in_head[k] + h * half) / 2, t.vec, part);
#pragma unroll
      for (int j = 0; j < V / 2; ++j) out[h * (V / 2) + j] = part[j];
    }
  }
  __device__ static void rotate_unit(int32_t rope, C (&a)[V], C (&b)[V], const C (&cos)[V], const C (&sin)[V], C sign) {
    if (rope == 2) {
#pragma unroll
      for (int j = 0; j < V; ++j) rotate(a[j], b[j], cos[j], sign * sin[j]);
    } else {
#pragma unroll
      for (int j = 0; j < V / 2; ++j) {
        rotate(a[2 * j], a[2 * j + 1], cos[j], sign * sin[j]);
        rotate(b[2 * j], b[2 * j + 1], cos[V / 2 + j], sign * sin[V / 2 + j]);
      }
    }
  }
  // Sums N values per unit over the unit's group, in every lane. `shared` is reusable after another barrier.
  template <bool Several, int N>
  __device__ void group_sum(C (&v)[U][N], C* shared) const {
    if (whole) {
#pragma unroll
      for (int i = N; i < U * N; ++i) v[0][i % N] += v[i / N][i % N];
      row_sum_once<Several>(v[0], shared);
#pragma unroll
      for (int i = N; i < U * N; ++i) v[i / N][i % N] = v[0][i % N];
      return;
    }
    for (int o = half / V / 2; o > 0; o >>= 1) {
#pragma unroll
      for (int i = 0; i < U * N; ++i) v[i / N][i % N] += __shfl_xor_sync(0xffffffffu, v[i / N][i % N], o);
    }
  }
  // Index of the unit's group, and so of its rstd.
  __device__ int64_t group_of(const Args<C>& t, int64_t r, int k) const {
    return whole ? r : r * (t.D / t.K) + head[k];
  }
};

template <class X, class Y, bool Jvp, bool Keep, class C>
__global__ void __launch_bounds__(!Keep ? kRowThreads
                                  : Jvp ? kStagedThreads
                                        : kKeepThreads)
    rms_rows(Args<C> t, const X* x, const X* x_dot, Y* y, Y* y_dot, C* rstd, bool dot_vec) {
  await_queued();
  constexpr int V = kRowPack<X, Y>, U = Units<V, C>::U, N = Jvp ? 2 : 1;
  __shared__ C shared[2][64];  // alternate between rows
  const Units<V, C> units(t);
  const int64_t step = (int64_t)gridDim.x * blockDim.y;
  C w[2 * U][V];
  if constexpr (Keep) {
#pragma unroll
    for (int p = 0; p < 2 * U; ++p) {
      if (units.at[p] >= 0) units.weights(t, p, w[p]);
    }
  }
  // Prefetch: one row in registers or, with a tangent, two in shared memory.
  extern __shared__ __align__(16) unsigned char staged[];
  RowPipe<X, X, V> pipe(staged);
  Raw<X, V> next[Jvp ? 1 : 2 * U];
  const auto fetch = [&](int64_t row, int stage) {
    if constexpr (Jvp) {
      pipe.issue(stage, row < t.M, x + row * t.D, dot_vec ? x_dot + row * t.D : nullptr, units.at);
    } else if (row < t.M) {
#pragma unroll
      for (int p = 0; p < 2 * U; ++p) {
        if (units.at[p] >= 0) next[p] = fetch_once<V>(x + row * t.D + units.at[p]);
      }
    }
  };
  int turn = 0;
  int64_t r = (int64_t)blockIdx.x * blockDim.y + threadIdx.y;
#pragma unroll
  for (int s = 0; s < (Jvp ? kRowStages - 1 : 1); ++s) fetch(r + s * step, s);
  for (int stage = 0; r < t.M; r += step, stage = stage + 1 == kRowStages ? 0 : stage + 1) {
    C v[2 * U][V], d[Jvp ? 2 * U : 1][V], sum[U][N] = {};
    if constexpr (Jvp) {
      fetch(r + (kRowStages - 1) * step, stage == 0 ? kRowStages - 1 : stage - 1);
      pipe.wait();
    }
#pragma unroll
    for (int p = 0; p < 2 * U; ++p) {
      if (units.at[p] < 0) continue;
      if constexpr (Jvp) {
        load_pack<V>(pipe.x(stage, p), v[p]);
        if (dot_vec) load_pack<V>(pipe.y(stage, p), d[p]);
        else load_values<V>(x_dot + r * t.D + units.at[p], false, d[p]);
      } else {
        unpack<V>(next[p], v[p]);
      }
    }
    if constexpr (!Jvp) fetch(r + step, 0);
    C cos[U][V], sin[U][V];
    if (t.rope != 0) {
      const int64_t row = t.token(r) * units.half;
#pragma unroll
      for (int k = 0; k < U; ++k) {
        if (!units.present(k)) continue;
        units.table(t, t.cos + row, k, cos[k]);
        units.table(t, t.sin + row, k, sin[k]);
      }
    }
#pragma unroll
    for (int p = 0; p < 2 * U; ++p) {
      if (units.at[p] < 0) continue;
#pragma unroll
      for (int j = 0; j < V; ++j) {
        sum[p / 2][0] = fma(v[p][j], v[p][j], sum[p / 2][0]);
        if constexpr (Jvp) sum[p / 2][1] = fma(v[p][j], d[p][j], sum[p / 2][1]);
      }
    }
    units.template group_sum<false>(sum, shared[turn ^= 1]);
#pragma unroll
    for (int k = 0; k < U; ++k) {
      if (!units.present(k)) continue;
      const C q = inv_sqrt(fma(sum[k][0], t.inv, t.eps));
      if (units.whole ? k == 0 && threadIdx.x == 0 : units.in_head[k] == 0) rstd[units.group_of(t, r, k)] = q;
      const C along_x = Jvp ? sum[k][N - 1] * t.inv * q * q : (C)0;
#pragma unroll
      for (int p = 2 * k; p < 2 * k + 2; ++p) {
        if constexpr (!Keep) units.weights(t, p, w[p]);
#pragma unroll
        for (int j = 0; j < V; ++j) {
          if constexpr (Jvp) d[p][j] = q * w[p][j] * (d[p][j] - v[p][j] * along_x);
          v[p][j] = mul_exact(mul_exact(v[p][j], q), w[p][j]);
        }
      }
      if (t.rope != 0) {
        units.rotate_unit(t.rope, v[2 * k], v[2 * k + 1], cos[k], sin[k], (C)1);
        if constexpr (Jvp) units.rotate_unit(t.rope, d[2 * k], d[2 * k + 1], cos[k], sin[k], (C)1);
      }
#pragma unroll
      for (int p = 2 * k; p < 2 * k + 2; ++p) {
        store_pack<V>(y + r * t.D + units.at[p], v[p]);
        if constexpr (Jvp) store_values<V>(y_dot + r * t.D + units.at[p], dot_vec, d[p]);
      }
    }
  }
}

// Each block walks rows and leaves its column sums in its slot of partial [slots][group]; heads are added in order.
template <class X, class Y, class C>
__global__ void __launch_bounds__(kBackThreads)
    rms_rows_back(Args<C> t, const X* x, const Y* y_bar, const C* rstd, X* x_bar, C* partial, bool out_vec) {
  await_queued();
  constexpr int V = kRowPack<X, Y>, U = Units<V, C>::U;
  extern __shared__ __align__(16) unsigned char staged[];
  __shared__ C shared[2][kBackRows][64];  // alternate between rows
  RowPipe<X, Y, V> pipe(staged);
  const Units<V, C> units(t);
  const int64_t step = (int64_t)gridDim.x * blockDim.y;
  int64_t r = (int64_t)blockIdx.x * blockDim.y + threadIdx.y;
  C dw[2 * U][V] = {}, q[U], q_next[U];
  int turn = 0;
#pragma unroll
  for (int s = 0; s < kRowStages - 1; ++s) {
    const int64_t ahead = r + s * step;
    pipe.issue(s, ahead < t.M, x + ahead * t.D, y_bar + ahead * t.D, units.at);
  }
#pragma unroll
  for (int k = 0; k < U; ++k) q[k] = r < t.M && units.present(k) ? rstd[units.group_of(t, r, k)] : (C)0;
  for (int stage = 0; r < t.M; r += step, stage = stage + 1 == kRowStages ? 0 : stage + 1) {
    const int64_t ahead = r + (kRowStages - 1) * step;
    pipe.issue(stage == 0 ? kRowStages - 1 : stage - 1, ahead < t.M, x + ahead * t.D, y_bar + ahead * t.D, units.at);
    const int64_t next = r + step, row = t.rope == 0 ? 0 : t.token(r) * units.half;
#pragma unroll
    for (int k = 0; k < U; ++k) q_next[k] = next < t.M && units.present(k) ? rstd[units.group_of(t, next, k)] : (C)0;
    C g[2 * U][V], sum[U][1] = {};  // g: y_bar rotated back, times w
    pipe.wait();
#pragma unroll
    for (int k = 0; k < U; ++k) {
      if (!units.present(k)) continue;
      load_pack<V>(pipe.y(stage, 2 * k), g[2 * k]);
      load_pack<V>(pipe.y(stage, 2 * k + 1), g[2 * k + 1]);
      if (t.rope != 0) {
        C cos[V], sin[V];
        units.table(t, t.cos + row, k, cos);
        units.table(t, t.sin + row, k, sin);
        units.rotate_unit(t.rope, g[2 * k], g[2 * k + 1], cos, sin, (C)-1);
      }
#pragma unroll
      for (int p = 2 * k; p < 2 * k + 2; ++p) {
        C v[V], w[V];
        load_pack<V>(pipe.x(stage, p), v);
        units.weights(t, p, w);
#pragma unroll
        for (int j = 0; j < V; ++j) {
          dw[p][j] += g[p][j] * v[j] * q[k];
          g[p][j] *= w[j];
          sum[k][0] += g[p][j] * v[j];
        }
      }
    }
    if (x_bar) {
      units.template group_sum<true>(sum, shared[turn ^= 1][threadIdx.y]);
#pragma unroll
      for (int k = 0; k < U; ++k) {
        if (!units.present(k)) continue;
        const C along_x = sum[k][0] * t.inv * q[k] * q[k];
#pragma unroll
        for (int p = 2 * k; p < 2 * k + 2; ++p) {
          C v[V];
          load_pack<V>(pipe.x(stage, p), v);
#pragma unroll
          for (int j = 0; j < V; ++j) g[p][j] = q[k] * (g[p][j] - v[j] * along_x);
          store_values<V>(x_bar + r * t.D + units.at[p], out_vec, g[p]);
        }
      }
    }
#pragma unroll
    for (int k = 0; k < U; ++k) q[k] = q_next[k];
  }
  if (!partial) return;
  C* fold = reinterpret_cast<C*>(staged);  // all staged rows have been read
  __syncthreads();
#pragma unroll
  for (int p = 0; p < 2 * U; ++p) {
    if (units.at[p] >= 0) store_pack<V>(fold + (int)(threadIdx.y * t.D) + units.at[p], dw[p]);
  }
  fold_columns(fold, (int)(blockDim.y * t.D), (int)t.group, partial + blockIdx.x * t.group);
}

// ---- any widths and addresses: group sums first, then the columns --------------------------------------------------
// The column that i is rotated with, and the column of the tables; i is the first of the pair when it is the smaller
// one.
template <class C>
__device__ int64_t partner(const Args<C>& t, int64_t i, int64_t& column) {
  const int64_t p = i % t.K, half = t.K / 2;
  column = t.rope == 1 ? p / 2 : p % half;
  return t.rope == 1 ? i - p + (p ^ 1) : p < half ? i + half : i - half;
}

// y_bar rotated back, at column i of row r.
template <class Y, class C>
__device__ C rotated_back(const Args<C>& t, const Y* y_bar, int64_t r, int64_t i) {
  const C own = (C)load_as(y_bar[r * t.D + i]);
  if (t.rope == 0) return own;
  int64_t column;
  const int64_t other = partner(t, i, column), at = r % t.L * (t.K / 2) + column;
  const C across = (C)load_as(y_bar[r * t.D + other]) * t.sin[at];
  return own * t.cos[at] + (i < other ? across : -across);
}

// One warp per group. Pass 0: rstd; 1: rstd and cross = mean of x x_dot; 2: cross = mean of x times the cotangent of x
// rstd.
template <int Pass, class X, class Other, class C>
__global__ void __launch_bounds__(kAnyThreads)
    rms_groups(Args<C> t, const X* x, const Other* other, C* rstd, C* cross) {
  await_queued();
  const int64_t groups = t.D / t.group, n = ((int64_t)blockIdx.x * kAnyThreads + threadIdx.x) / 32;
  if (n >= t.M * groups) return;
  C square = 0, dot = 0;
  for (int64_t i = threadIdx.x % 32; i < t.group; i += 32) {
    const C v = (C)load_as(x[n * t.group + i]);
    if constexpr (Pass < 2) square = fma(v, v, square);
    if constexpr (Pass == 1) dot = fma(v, (C)load_as(other[n * t.group + i]), dot);
    if constexpr (Pass == 2)
      dot = fma(v, rotated_back(t, other, n / groups, n % groups * t.group + i) * load_any<C>(t.w, i, t.w_dtype), dot);
  }
  square = warp_sum(square);
  dot = warp_sum(dot);
  if (threadIdx.x % 32 != 0) return;
  if constexpr (Pass < 2) rstd[n] = inv_sqrt(fma(square, t.inv, t.eps));
  if constexpr (Pass > 0) cross[n] = dot * t.inv;
}

template <class X, class Y, bool Jvp, class C>
__global__ void __launch_bounds__(kAnyThreads)
    rms_any(Args<C> t, const X* x, const X* x_dot, const C* rstd, const C* cross, Y* y, Y* y_dot) {
  await_queued();
  const int64_t r = blockIdx.x, groups = t.D / t.group;
  auto primal = [&](int64_t i) {
    return mul_exact(mul_exact((C)load_as(x[r * t.D + i]), rstd[r * groups + i / t.group]),
                     load_any<C>(t.w, i % t.group, t.w_dtype));
  };
  auto tangent = [&](int64_t i) {
    const C q = rstd[r * groups + i / t.group], along_x = cross[r * groups + i / t.group] * q * q;
    return q * load_any<C>(t.w, i % t.group, t.w_dtype) *
           ((C)load_as(x_dot[r * t.D + i]) - (C)load_as(x[r * t.D + i]) * along_x);
  };
  for (int64_t i = threadIdx.x; i < t.D; i += kAnyThreads) {
    int64_t column = 0;
    const int64_t other = t.rope == 0 ? i : partner(t, i, column), at = r % t.L * (t.K / 2) + column;
    auto place = [&](auto value, Y* out) {
      C a = value(i);
      if (t.rope != 0) {
        C b = value(other);
        if (i < other) rotate(a, b, t.cos[at], t.sin[at]);
        else rotate(b, a, t.cos[at], t.sin[at]);
      }
      out[r * t.D + i] = store_as<Y>(a);
    };
    place(primal, y);
    if constexpr (Jvp) place(tangent, y_dot);
  }
}

// partial: [slots][D].
template <class X, class Y, class C>
__global__ void __launch_bounds__(kAnyThreads)
    rms_any_back(Args<C> t, const X* x, const Y* y_bar, const C* rstd, const C* cross, X* x_bar, C* partial) {
  await_queued();
  const int64_t groups = t.D / t.group;
  if (partial) partial += blockIdx.x * t.D;
  for (int64_t r = blockIdx.x; r < t.M; r += gridDim.x) {
    for (int64_t i = threadIdx.x; i < t.D; i += kAnyThreads) {
      const int64_t n = r * groups + i / t.group;
      const C q = rstd[n], v = (C)load_as(x[r * t.D + i]), g = rotated_back(t, y_bar, r, i);
      if (partial) partial[i] = (r == blockIdx.x ? (C)0 : partial[i]) + g * v * q;
      if (x_bar)
        x_bar[r * t.D + i] = store_as<X>(q * (g * load_any<C>(t.w, i % t.group, t.w_dtype) - v * (cross[n] * q * q)));
    }
  }
}

// ---- host side ----------------------------------------------------------------------------------------------------
// The choice of kernel depends on x, y and the sizes alone, so that _fwd and _jvp make the same one.
template <bool Jvp, class X, class Y, class C>
void launch(const Args<C>& t, const X* x, const X* x_dot, Y* y, Y* y_dot, C* rstd, const Sizes& z) {
  if constexpr (!std::is_same<X, double>::value) {
    const dim3 block = row_block(z.D);
    const size_t staged = RowPipe<X, X, kRowPack<X, Y>>::bytes(block), bytes = Jvp ? staged : 0;
    if (units_fit(x, y, z) && shared_fits(staged)) {
      const bool dot_vec = aligned(x_dot, 16) && aligned(y_dot, 16);
      const auto go = [&](auto kernel) {
        queue_kernel(kernel, blocks_for(kernel, block, bytes, t.M), block, bytes, t, x, x_dot, y, y_dot, rstd, dot_vec);
      };
      if ((int)(block.x * block.y) <= kKeepThreads) go(rms_rows<X, Y, Jvp, true, C>);
      else go(rms_rows<X, Y, Jvp, false, C>);
      return;
    }
  }
  const int64_t count = t.M * (z.D / z.group);
  Workspace cross(Jvp ? (size_t)count * sizeof(C) : 0);
  queue_kernel(rms_groups<Jvp, X, X, C>, grid_of(ceil_div(count, kAnyThreads / 32)), kAnyThreads, 0, t, x, x_dot, rstd,
               cross.as<C>());
  queue_kernel(rms_any<X, Y, Jvp, C>, grid_of(t.M), kAnyThreads, 0, t, x, x_dot, rstd, cross.as<C>(), y, y_dot);
}

template <class X, class Y, class C>
void launch_back(const Args<C>& t, const X* x, const Y* y_bar, const C* rstd, X* x_bar, C* w_bar, const Sizes& z) {
  if (!x_bar && !w_bar) return;
  if constexpr (!std::is_same<X, double>::value) {
    const dim3 block = back_block(z.D, RowPipe<X, Y, kRowPack<X, Y>>::bytes);
    const size_t bytes = RowPipe<X, Y, kRowPack<X, Y>>::bytes(block);
    if (units_fit(x, y_bar, z) && shared_fits(bytes)) {
      auto kernel = rms_rows_back<X, Y, C>;
      const int64_t slots = slots_for(kernel, block, bytes, 1, t.M);
      Workspace partial(w_bar ? (size_t)(slots * z.group) * sizeof(C) : 0);
      queue_kernel(kernel, grid_of(slots), block, bytes, t, x, y_bar, rstd, x_bar, w_bar ? partial.as<C>() : nullptr,
                   aligned(x_bar, 16));
      if (w_bar) add_slots<C>(partial.as<C>(), 1, slots, z.group, 1, w_bar, nullptr, 0);
      return;
    }
  }
  const int64_t groups = z.D / z.group;
  auto kernel = rms_any_back<X, Y, C>;
  const int64_t slots = slots_for(kernel, dim3(kAnyThreads), 0, 1, t.M);
  Workspace cross((size_t)(t.M * groups) * sizeof(C)), partial(w_bar ? (size_t)(slots * z.D) * sizeof(C) : 0);
  if (x_bar)
    queue_kernel(rms_groups<2, X, Y, C>, grid_of(ceil_div(t.M * groups, kAnyThreads / 32)), kAnyThreads, 0, t, x, y_bar,
                 (C*)nullptr, cross.as<C>());
  queue_kernel(kernel, grid_of(slots), kAnyThreads, 0, t, x, y_bar, rstd, cross.as<C>(), x_bar,
               w_bar ? partial.as<C>() : nullptr);
  if (w_bar) add_slots<C>(partial.as<C>(), 1, slots * groups, z.group, 1, w_bar, nullptr, 0);
}

}  // namespace

void forward(const Forward& a, const Sizes& z) {
  with_dtypes(z.x_dtype, z.y_dtype, "x_dtype, y_dtype", [&](auto x_type, auto y_type) {
    using X = decltype(x_type);
    using Y = decltype(y_type);
    using C = compute_t<X>;
    if (z.B == 0 || z.L == 0) return;
    const auto t = args<C>(a.w, a.cos, a.sin, a.eps, z);
    const X *x = static_cast<const X*>(a.x), *x_dot = static_cast<const X*>(a.x_dot);
    Y *y = static_cast<Y*>(a.y), *y_dot = static_cast<Y*>(a.y_dot);
    if (y_dot) launch<true>(t, x, x_dot, y, y_dot, static_cast<C*>(a.rstd), z);
    else launch<false>(t, x, x_dot, y, y_dot, static_cast<C*>(a.rstd), z);
  });
}

void backward(const Backward& a, const Sizes& z) {
  with_dtypes(z.x_dtype, z.y_dtype, "x_dtype, y_dtype", [&](auto x_type, auto y_type) {
    using X = decltype(x_type);
    using Y = decltype(y_type);
    using C = compute_t<X>;
    if (z.B == 0 || z.L == 0) return;
    launch_back(args<C>(a.w, a.cos, a.sin, 0, z), static_cast<const X*>(a.x), static_cast<const Y*>(a.y_bar),
                static_cast<const C*>(a.rstd), static_cast<X*>(a.x_bar), static_cast<C*>(a.w_bar), z);
  });
}

}  // namespace rcm::rms_norm_rope
