// Attention without tensor cores: f32 and f64, and the shapes that the mma kernels do not take.
//
// Idea: online softmax forward, P recomputed from lse backward, on the ordinary units.
// Tile: a block owns 32 rows, four per warp; the other rows come 32 at a time, one per lane. Widths are processed in
// pieces of 32 columns, so that any width fits in shared memory.
#include <algorithm>
#include <climits>

#include "attention.cuh"

namespace rcm {

namespace {

constexpr int kTile = 32, kWarps = 8, kThreads = kWarps * 32, kEach = kTile / kWarps;
constexpr int kPitch = kTile + 4;  // keeps rows 16-byte aligned and spreads a column over the banks

template <class C>
using Piece = C[kTile][kPitch];

// Rows [row, row + 32) and columns [column, column + 32) of one head; zeros beyond `rows` and `columns`.
template <class C, class T>
__device__ inline void load_piece(Piece<C>& to, const T* from, int64_t step, int64_t row, int64_t rows, int64_t column,
                                  int64_t columns) {
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
#pragma unroll
  for (int i = 0; i < kEach; ++i) {
    const int64_t r = row + warp + i * kWarps, c = column + lane;
    to[warp + i * kWarps][lane] = r < rows && c < columns ? (C)load_as(from[r * step + c]) : (C)0;
  }
}

template <class C>
__device__ inline Pack<C, 4> four(const C* p) {
  return *reinterpret_cast<const Pack<C, 4>*>(p);
}

// sum[r] += a[row r of this warp] . b[lane].
template <class C>
__device__ inline void dot_rows(C (&sum)[kEach], const Piece<C>& a, const Piece<C>& b) {
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
#pragma unroll(sizeof(C) == 8 ? 1 : 2)
  for (int c = 0; c < kTile; c += 4) {
    const Pack<C, 4> y = four(&b[lane][c]);
#pragma unroll
    for (int r = 0; r < kEach; ++r) {
      const Pack<C, 4> x = four(&a[warp * kEach + r][c]);
#pragma unroll
      for (int i = 0; i < 4; ++i) sum[r] = fma(x.v[i], y.v[i], sum[r]);
    }
  }
}

// sum[r] += sum_j weight[row r of this warp][j] b[j][lane].
template <class C>
__device__ inline void mix_rows(C (&sum)[kEach], const Piece<C>& weight, const Piece<C>& b) {
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
#pragma unroll(sizeof(C) == 8 ? 1 : 2)
  for (int j = 0; j < kTile; j += 4) {
    const C y[4] = {b[j][lane], b[j + 1][lane], b[j + 2][lane], b[j + 3][lane]};
#pragma unroll
    for (int r = 0; r < kEach; ++r) {
      const Pack<C, 4> x = four(&weight[warp * kEach + r][j]);
#pragma unroll
      for (int i = 0; i < 4; ++i) sum[r] = fma(x.v[i], y[i], sum[r]);
    }
  }
}

template <class C>
__device__ inline C warp_max(C v) {
#pragma unroll
  for (int o = 16; o > 0; o >>= 1) v = fmax(v, __shfl_xor_sync(0xffffffffu, v, o));
  return v;
}

template <class T>
struct ForwardMemory {
  const T *q, *k, *v, *q_dot, *k_dot, *v_dot;
  T *o, *o_dot;
  compute_t<T>* lse;
};

// One code path with and without tangents (the branches are uniform over the grid), hence the same primal. A block
// computes `Columns` pieces of 32 output columns.
template <class T, int Columns>
__global__ void __launch_bounds__(kThreads)
    forward_kernel(const AttentionShape s, const ForwardMemory<T> p, int chunks) {
  await_queued();
  using C = compute_t<T>;
  __shared__ alignas(16) Piece<C> a, a_dot, b, b_dot;  // a and a_dot also hold each warp's weights
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  const Place at = place_of(blockIdx.x, (s.Lq + kTile - 1) / kTile, chunks, s.H);
  const int64_t q0 = at.tile * kTile, first = (int64_t)at.chunk * Columns * kTile;
  const int64_t q_at = row_offset(s.q, at.b, 0, at.h), k_at = row_offset(s.k, at.b, 0, at.h),
                v_at = row_offset(s.v, at.b, 0, at.h);
  const bool cross = p.q_dot || p.k_dot;
  const C scale = (C)s.scale;
  C acc[Columns][kEach] = {}, acc_dot[Columns][kEach] = {}, top[kEach], sum[kEach] = {}, mean[kEach] = {};
#pragma unroll
  for (int r = 0; r < kEach; ++r) top[r] = -INFINITY;

  for (int64_t k0 = 0; k0 < s.Lk; k0 += kTile) {
    // Scores
    C score[kEach] = {}, score_dot[kEach] = {};
    for (int64_t c = 0; c < s.K; c += kTile) {
      __syncthreads();
      load_piece(a, p.q + q_at, s.q[1], q0, s.Lq, c, s.K);
      load_piece(b, p.k + k_at, s.k[1], k0, s.Lk, c, s.K);
      if (p.q_dot) load_piece(a_dot, p.q_dot + q_at, s.q[1], q0, s.Lq, c, s.K);
      if (p.k_dot) load_piece(b_dot, p.k_dot + k_at, s.k[1], k0, s.Lk, c, s.K);
      __syncthreads();
      dot_rows(score, a, b);
      if (p.q_dot) dot_rows(score_dot, a_dot, b);
      if (p.k_dot) dot_rows(score_dot, a, b_dot);
    }
    __syncwarp();  // its rows of a and a_dot are read by this warp only, which has finished with them

    // Softmax
#pragma unroll
    for (int r = 0; r < kEach; ++r) {
      const C t = k0 + lane < s.Lk ? score[r] * scale : (C)-INFINITY;
      const C high = fmax(top[r], warp_max(t)), shrink = exp(top[r] - high), w = exp(t - high);
      top[r] = high;
      sum[r] = fma(sum[r], shrink, w);
#pragma unroll
      for (int c = 0; c < Columns; ++c) acc[c][r] *= shrink;
      a[warp * kEach + r][lane] = w;
      if (p.o_dot) {
        const C w_dot = w * (score_dot[r] * scale);
        mean[r] = fma(mean[r], shrink, w_dot);
#pragma unroll
        for (int c = 0; c < Columns; ++c) acc_dot[c][r] *= shrink;
        a_dot[warp * kEach + r][lane] = w_dot;
      }
    }

    // Values
#pragma unroll
    for (int c = 0; c < Columns; ++c) {
      __syncthreads();
      load_piece(b, p.v + v_at, s.v[1], k0, s.Lk, first + c * kTile, s.Kv);
      if (p.v_dot) load_piece(b_dot, p.v_dot + v_at, s.v[1], k0, s.Lk, first + c * kTile, s.Kv);
      __syncthreads();
      mix_rows(acc[c], a, b);
      if (cross) mix_rows(acc_dot[c], a_dot, b);
      if (p.v_dot) mix_rows(acc_dot[c], a, b_dot);
    }
  }

  // Epilogue
#pragma unroll
  for (int r = 0; r < kEach; ++r) {
    const C total = warp_sum(sum[r]), inverse = s.Lk > 0 ? 1 / total : (C)0, spread = warp_sum(mean[r]) * inverse;
    const int64_t row = q0 + warp * kEach + r;
    if (row >= s.Lq) continue;
    const int64_t to = row_offset(s.o, at.b, row, at.h);
#pragma unroll
    for (int c = 0; c < Columns; ++c) {
      const int64_t column = first + c * kTile + lane;
      if (column >= s.Kv) continue;
      const C y = acc[c][r] * inverse;
      if (p.o) p.o[to + column] = store_as<T>(y);
      if (p.o_dot) p.o_dot[to + column] = store_as<T>(acc_dot[c][r] * inverse - spread * y);
    }
    if (p.lse && at.chunk == 0 && lane == 0)
      p.lse[(at.b * s.H + at.h) * s.Lq + row] = s.Lk > 0 ? top[r] + log(total) : (C)-INFINITY;
  }
}

// Operands 0 (q and k) give the scores, operands 1 (o_bar and v) the cotangent of P.
template <class T>
struct BackwardMemory {
  const T *own[2], *other[2];
  int64_t own_step[2][3], other_step[2][3];
  const compute_t<T>*lse, *dots;  // [B,H,Lq]
  T* out[2];                      // [0] scale dS other[0]; [1] P other[1]; shaped as the own operands; null: not wanted
  int64_t own_rows, other_rows, width[2], H;
  double scale;
};

// Blocks own keys (P and dS transposed) or queries, so that every sum has one writer and one order.
template <class T, int Columns, bool OwnKeys>
__global__ void __launch_bounds__(kThreads) backward_kernel(const BackwardMemory<T> p, int chunks) {
  await_queued();
  using C = compute_t<T>;
  __shared__ alignas(16) Piece<C> a, weight, weight_dot, b;
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  const Place at = place_of(blockIdx.x, (p.own_rows + kTile - 1) / kTile, chunks, p.H);
  const int64_t row0 = at.tile * kTile, first = (int64_t)at.chunk * Columns * kTile, head = at.b * p.H + at.h;
  const C scale = (C)p.scale;
  const T *own[2], *other[2];
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    own[i] = p.own[i] + row_offset(p.own_step[i], at.b, 0, at.h);
    other[i] = p.other[i] + row_offset(p.other_step[i], at.b, 0, at.h);
  }
  C acc0[Columns][kEach] = {}, acc1[Columns][kEach] = {}, shift[kEach] = {}, dots[kEach] = {};
  if constexpr (!OwnKeys) {
#pragma unroll
    for (int r = 0; r < kEach; ++r) {
      const int64_t row = row0 + warp * kEach + r;
      if (row < p.own_rows) shift[r] = p.lse[head * p.own_rows + row], dots[r] = p.dots[head * p.own_rows + row];
    }
  }

  for (int64_t j0 = 0; j0 < p.other_rows; j0 += kTile) {
    // Scores and the cotangent of P
    C score[kEach] = {}, slope[kEach] = {};
    for (int64_t c = 0; c < p.width[0]; c += kTile) {
      __syncthreads();
      load_piece(a, own[0], p.own_step[0][1], row0, p.own_rows, c, p.width[0]);
      load_piece(b, other[0], p.other_step[0][1], j0, p.other_rows, c, p.width[0]);
      __syncthreads();
      dot_rows(score, a, b);
    }
    if (p.out[0]) {
      for (int64_t c = 0; c < p.width[1]; c += kTile) {
        __syncthreads();
        load_piece(a, own[1], p.own_step[1][1], row0, p.own_rows, c, p.width[1]);
        load_piece(b, other[1], p.other_step[1][1], j0, p.other_rows, c, p.width[1]);
        __syncthreads();
        dot_rows(slope, a, b);
      }
    }
    const bool valid = j0 + lane < p.other_rows;
    if constexpr (OwnKeys) {
      const C lse = valid ? p.lse[head * p.other_rows + j0 + lane] : (C)0,
              dot = valid && p.out[0] ? p.dots[head * p.other_rows + j0 + lane] : (C)0;
#pragma unroll
      for (int r = 0; r < kEach; ++r) shift[r] = lse, dots[r] = dot;
    }
    __syncwarp();  // each warp reads and writes its own rows of the weights

    // Weights
#pragma unroll
    for (int r = 0; r < kEach; ++r) {
      const C w = valid ? exp(score[r] * scale - shift[r]) : (C)0;
      weight[warp * kEach + r][lane] = w;
      weight_dot[warp * kEach + r][lane] = valid ? w * (slope[r] - dots[r]) : (C)0;
    }

    // Products
#pragma unroll
    for (int c = 0; c < Columns; ++c) {
      const int64_t column = first + c * kTile;
      if (p.out[0] && column < p.width[0]) {
        __syncthreads();
        load_piece(b, other[0], p.other_step[0][1], j0, p.other_rows, column, p.width[0]);
        __syncthreads();
        mix_rows(acc0[c], weight_dot, b);
      }
      if (OwnKeys && p.out[1] && column < p.width[1]) {
        __syncthreads();
        load_piece(b, other[1], p.other_step[1][1], j0, p.other_rows, column, p.width[1]);
        __syncthreads();
        mix_rows(acc1[c], weight, b);
      }
    }
  }

  // Epilogue
#pragma unroll
  for (int r = 0; r < kEach; ++r) {
    const int64_t row = row0 + warp * kEach + r;
    if (row >= p.own_rows) continue;
#pragma unroll
    for (int c = 0; c < Columns; ++c) {
      const int64_t column = first + c * kTile + lane;
      if (p.out[0] && column < p.width[0])
        p.out[0][row_offset(p.own_step[0], at.b, row, at.h) + column] = store_as<T>(acc0[c][r] * scale);
      if (OwnKeys && p.out[1] && column < p.width[1])
        p.out[1][row_offset(p.own_step[1], at.b, row, at.h) + column] = store_as<T>(acc1[c][r]);
    }
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    row_dots_kernel(const AttentionShape s, const T* o, const T* o_bar, compute_t<T>* dots) {
  await_queued();
  using C = compute_t<T>;
  const int64_t at = (int64_t)blockIdx.x * kWarps + (threadIdx.x >> 5);
  if (at >= s.B * s.Lq * s.H) return;
  const int64_t h = at % s.H, l = at / s.H % s.Lq, b = at / s.H / s.Lq, row = row_offset(s.o, b, l, h);
  C sum = 0;
  for (int64_t c = threadIdx.x & 31; c < s.Kv; c += 32)
    sum = fma((C)load_as(o[row + c]), (C)load_as(o_bar[row + c]), sum);
  sum = warp_sum(sum);
  if ((threadIdx.x & 31) == 0) dots[(b * s.H + h) * s.Lq + l] = sum;
}

unsigned grid(int64_t blocks) {
  if (blocks > INT_MAX) fail(RCM_E_SHAPE, "attention: %lld tiles are too many for one launch", (long long)blocks);
  return (unsigned)blocks;
}

// Calls body(pieces of 32 columns per block, blocks that the width is divided among).
template <class Body>
void with_columns(int64_t width, Body&& body) {
  const int64_t pieces = ceil_div(width, kTile);
  if (pieces <= 1) body(std::integral_constant<int, 1>{}, 1);
  else if (pieces <= 2) body(std::integral_constant<int, 2>{}, 1);
  else body(std::integral_constant<int, 4>{}, (int)ceil_div(pieces, 4));
}

template <class T, bool OwnKeys>
void backward(int64_t B, const BackwardMemory<T>& p) {
  const int64_t width = std::max(p.out[0] ? p.width[0] : 0, p.out[1] ? p.width[1] : 0),
                tiles = B * p.H * ceil_div(p.own_rows, kTile);
  if (tiles == 0) return;
  with_columns(width, [&](auto columns, int chunks) {
    queue_kernel(backward_kernel<T, decltype(columns)::value, OwnKeys>, grid(tiles * chunks), kThreads, 0, p, chunks);
  });
}

}  // namespace

void plain_forward(const AttentionShape& s, const void* q, const void* k, const void* v, const void* q_dot,
                   const void* k_dot, const void* v_dot, void* o, void* o_dot, void* lse) {
  with_dtype(s.dtype, "dtype", [&](auto zero) {
    using T = decltype(zero);
    auto in = [](const void* m) { return static_cast<const T*>(m); };
    const ForwardMemory<T> p{in(q),
                             in(k),
                             in(v),
                             in(q_dot),
                             in(k_dot),
                             in(v_dot),
                             static_cast<T*>(o),
                             static_cast<T*>(o_dot),
                             static_cast<compute_t<T>*>(lse)};
    const int64_t tiles = s.B * s.H * ceil_div(s.Lq, kTile);
    if (tiles == 0) return;
    with_columns(s.Kv, [&](auto columns, int chunks) {
      queue_kernel(forward_kernel<T, decltype(columns)::value>, grid(tiles * chunks), kThreads, 0, s, p, chunks);
    });
  });
}

void attention_row_dots(const AttentionShape& s, const void* o, const void* o_bar, void* dots) {
  const int64_t rows = s.B * s.H * s.Lq;
  if (rows == 0) return;
  with_dtype(s.dtype, "dtype", [&](auto zero) {
    using T = decltype(zero);
    queue_kernel(row_dots_kernel<T>, grid(ceil_div(rows, kWarps)), kThreads, 0, s, static_cast<const T*>(o),
                 static_cast<const T*>(o_bar), static_cast<compute_t<T>*>(dots));
  });
}

void plain_backward(const AttentionShape& s, const void* q, const void* k, const void* v, const void* o,
                    const void* lse, const void* o_bar, void* q_bar, void* k_bar, void* v_bar) {
  with_dtype(s.dtype, "dtype", [&](auto zero) {
    using T = decltype(zero);
    using C = compute_t<T>;
    Workspace dots((size_t)(s.B * s.H * s.Lq) * sizeof(C));
    if (q_bar || k_bar) attention_row_dots(s, o, o_bar, dots.as<void>());
    auto fill = [&](const T*(&memory)[2], int64_t (&step)[2][3], bool keys) {
      memory[0] = static_cast<const T*>(keys ? k : q);
      memory[1] = static_cast<const T*>(keys ? v : o_bar);
      std::copy_n(keys ? s.k : s.q, 3, step[0]);
      std::copy_n(keys ? s.v : s.o, 3, step[1]);
    };
    auto pass = [&](auto keys, void* out0, void* out1) {
      constexpr bool kKeys = decltype(keys)::value;
      BackwardMemory<T> p{};
      fill(p.own, p.own_step, kKeys);
      fill(p.other, p.other_step, !kKeys);
      p.lse = static_cast<const C*>(lse);
      p.dots = dots.as<C>();
      p.out[0] = static_cast<T*>(out0);
      p.out[1] = static_cast<T*>(out1);
      p.own_rows = kKeys ? s.Lk : s.Lq;
      p.other_rows = kKeys ? s.Lq : s.Lk;
      p.width[0] = s.K;
      p.width[1] = s.Kv;
      p.H = s.H;
      p.scale = s.scale;
      backward<T, kKeys>(s.B, p);
    };
    if (k_bar || v_bar) pass(std::true_type{}, k_bar, v_bar);
    if (q_bar) pass(std::false_type{}, q_bar, nullptr);
  });
}

}  // namespace rcm
