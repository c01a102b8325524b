// Attention of f32 tensors with its tangent on the tensor cores (sm_80 and later), where rcm_f32_products allows it.
//
// Idea: every factor is the sum of two bf16 numbers and every product is three (high high + high low + low high; low
// low is below the last bit kept). Weights P and P.S' are split as they leave the softmax. Errors are those of f32
// arithmetic within a small factor, at a third of the bf16 kernels' rate.
// Tile: M queries (16 per warp) by 32 keys; each operand occupies two tiles (high and low) in shared memory.
// Barriers: keys and values load alternately by cp.async; __syncthreads separates each load from its use and from its
// reuse.
#include <algorithm>
#include <climits>

#include "attention.cuh"
#include "cuda/matmul/high_low.cuh"
#include "cuda/ptx/mma.cuh"

namespace rcm {

using namespace ptx;

namespace {

constexpr float kLog2e = 1.4426950408889634f, kLn2 = 0.6931471805599453f;

// High and low parts of one tensor, dense [B, L, H, W]; null when the tensor is absent.
struct HighLow {
  const bf16 *high, *low;
};

struct SplitMemory {
  HighLow q, k, v, q_dot, k_dot, v_dot;
  float *o, *o_dot, *lse;
  int64_t o_step[3];
  int64_t Lq, Lk, H;
  int K, Kv;
  float scale;
};

// Offset in a strided [B, L, H, W] of element i of a dense one.
struct Strided {
  int64_t s0, s1, s2, L, H, W;
  __device__ int64_t operator()(int64_t i) const {
    const int64_t w = i % W, h = i / W % H, l = i / W / H % L, b = i / W / H / L;
    return b * s0 + l * s1 + h * s2 + w;
  }
};

// c0, c1 += x y over 16 columns each, x and y as high and low parts.
__device__ inline void product3(float (&c0)[4], float (&c1)[4], const uint32_t (&x)[2][4], const uint32_t (&y)[2][4]) {
#pragma unroll
  for (int i = 0; i < 3; ++i) {
    const int a = i == 2, b = i == 1;
    mma<bf16>(c0, x[a], y[b][0], y[b][1]);
    mma<bf16>(c1, x[a], y[b][2], y[b][3]);
  }
}

// High and low operands whose sum is c to 16 bits.
template <int N>
__device__ inline void split_operand(uint32_t (&a)[2][N / 2][4], const float (&c)[N][4]) {
#pragma unroll
  for (int i = 0; i < N / 2; ++i) {
#pragma unroll
    for (int r = 0; r < 4; ++r) {
      const float x = c[2 * i + r / 2][r % 2 * 2], y = c[2 * i + r / 2][r % 2 * 2 + 1];
      const uint32_t high = pack_pair<bf16>(x, y);
      a[0][i][r] = high;
      a[1][i][r] = pack_pair<bf16>(x - __uint_as_float(high << 16), y - __uint_as_float(high & 0xffff0000u));
    }
  }
}

template <int D, int M, int N, bool Dot>
__global__ void __launch_bounds__(M * 2, 1) split_kernel(const SplitMemory p) {
  await_queued();
  constexpr int kThreads = M * 2, kPitch = pitch(D), kSides = Dot ? 4 : 2;

  // Shared memory
  extern __shared__ __align__(16) unsigned char shared[];
  // [high, low, tangent high, tangent low][M][kPitch]; keys and values alike
  bf16* const qs = reinterpret_cast<bf16*>(shared);
  bf16* const ks = qs + kSides * M * kPitch;
  bf16* const vs = ks + kSides * N * kPitch;
  const int warp = threadIdx.x >> 5, lane = threadIdx.x & 31;
  const Place at = place_of(blockIdx.x, (p.Lq + M - 1) / M, 1, p.H);
  const int64_t q0 = at.tile * M, q_at = (at.b * p.Lq * p.H + at.h) * p.K, k_at = (at.b * p.Lk * p.H + at.h) * p.K,
                v_at = (at.b * p.Lk * p.H + at.h) * p.Kv;
  const float scale2 = p.scale * kLog2e;
  const bool q_dot = Dot && p.q_dot.high, k_dot = Dot && p.k_dot.high, v_dot = Dot && p.v_dot.high,
             cross = q_dot || k_dot;

  // Loads
  auto load = [&](auto rows, bf16* to, const HighLow& h, int64_t offset, int64_t first, int64_t count, int width) {
    constexpr int R = decltype(rows)::value;
    load_tile<R, D, kThreads>(to, h.high + offset, p.H * width, first, count, width);
    load_tile<R, D, kThreads>(to + R * kPitch, h.low + offset, p.H * width, first, count, width);
  };
  constexpr std::integral_constant<int, M> kM{};
  constexpr std::integral_constant<int, N> kN{};
  auto load_keys = [&](int64_t k0) {
    load(kN, ks, p.k, k_at, k0, p.Lk, p.K);
    if (k_dot) load(kN, ks + 2 * N * kPitch, p.k_dot, k_at, k0, p.Lk, p.K);
  };

  float acc[D / 8][4], acc_dot[Dot ? D / 8 : 1][4];
  float top[2] = {-INFINITY, -INFINITY}, sum[2] = {0.f, 0.f}, mean[2] = {0.f, 0.f};
  clear(acc);
  clear(acc_dot);
  load(kM, qs, p.q, q_at, q0, p.Lq, p.K);
  if (q_dot) load(kM, qs + 2 * M * kPitch, p.q_dot, q_at, q0, p.Lq, p.K);
  if (p.Lk > 0) load_keys(0);
  copy_commit();

  for (int64_t k0 = 0; k0 < p.Lk; k0 += N) {
    copy_wait<0>();
    __syncthreads();
    load(kN, vs, p.v, v_at, k0, p.Lk, p.Kv);
    if (v_dot) load(kN, vs + 2 * N * kPitch, p.v_dot, v_at, k0, p.Lk, p.Kv);
    copy_commit();

    // Scores
    float sc[N / 8][4], sd[N / 8][4];
    clear(sc);
    clear(sd);
    {
      const bf16* const mine = qs + warp * 16 * kPitch + piece_rows(kPitch);
      const bf16* const keys = ks + piece_columns(kPitch);
#pragma unroll
      for (int c = 0; c < D; c += 16) {
        uint32_t x[2][4], x_dot[2][4];
        ldmatrix(x[0], mine + c);
        ldmatrix(x[1], mine + M * kPitch + c);
        if (q_dot) {
          ldmatrix(x_dot[0], mine + 2 * M * kPitch + c);
          ldmatrix(x_dot[1], mine + 3 * M * kPitch + c);
        }
#pragma unroll
        for (int n = 0; n < N; n += 16) {
          uint32_t y[2][4];
          ldmatrix(y[0], keys + n * kPitch + c);
          ldmatrix(y[1], keys + (N + n) * kPitch + c);
          product3(sc[n / 8], sc[n / 8 + 1], x, y);
          if (q_dot) product3(sd[n / 8], sd[n / 8 + 1], x_dot, y);
          if (k_dot) {
            ldmatrix(y[0], keys + (2 * N + n) * kPitch + c);
            ldmatrix(y[1], keys + (3 * N + n) * kPitch + c);
            product3(sd[n / 8], sd[n / 8 + 1], x, y);
          }
        }
      }
    }
#pragma unroll
    for (int n = 0; n < N / 8; ++n) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        sc[n][e] = __fmul_rn(sc[n][e], scale2);
        if (k0 + n * 8 + (lane & 3) * 2 + (e & 1) >= p.Lk) sc[n][e] = -INFINITY;
      }
    }

    // Softmax
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      float high = top[i];
#pragma unroll
      for (int n = 0; n < N / 8; ++n) high = fmaxf(high, fmaxf(sc[n][2 * i], sc[n][2 * i + 1]));
      high = quad_max(high);
      const float shrink = exp2f(__fsub_rn(top[i], high));
      top[i] = high;
      float total = 0.f, cross_total = 0.f;
#pragma unroll
      for (int n = 0; n < N / 8; ++n) {
#pragma unroll
        for (int e = 2 * i; e < 2 * i + 2; ++e) {
          sc[n][e] = exp2f(__fsub_rn(sc[n][e], high));
          total = __fadd_rn(total, sc[n][e]);
          if constexpr (Dot) {
            sd[n][e] *= sc[n][e] * p.scale;
            cross_total += sd[n][e];
          }
        }
      }
      sum[i] = __fmaf_rn(sum[i], shrink, total);
      mean[i] = fmaf(mean[i], shrink, cross_total);
#pragma unroll
      for (int n = 0; n < D / 8; ++n) {
#pragma unroll
        for (int e = 2 * i; e < 2 * i + 2; ++e) {
          acc[n][e] = __fmul_rn(acc[n][e], shrink);
          if constexpr (Dot) acc_dot[n][e] *= shrink;
        }
      }
    }
    uint32_t weight[2][N / 16][4], weight_dot[2][N / 16][4];
    split_operand(weight, sc);
    if constexpr (Dot) split_operand(weight_dot, sd);

    // Values
    copy_wait<0>();
    __syncthreads();
    if (k0 + N < p.Lk) load_keys(k0 + N);
    copy_commit();
    const bf16* const values = vs + piece_rows(kPitch);
#pragma unroll
    for (int c = 0; c < N / 16; ++c) {
      const uint32_t (&w0)[4] = weight[0][c];
      const uint32_t (&w1)[4] = weight[1][c];
      const uint32_t w[2][4] = {{w0[0], w0[1], w0[2], w0[3]}, {w1[0], w1[1], w1[2], w1[3]}};
#pragma unroll
      for (int n = 0; n < D; n += 16) {
        uint32_t y[2][4];
        ldmatrix_trans(y[0], values + c * 16 * kPitch + n);
        ldmatrix_trans(y[1], values + (N + c * 16) * kPitch + n);
        product3(acc[n / 8], acc[n / 8 + 1], w, y);
        if constexpr (Dot) {
          if (cross) {
            const uint32_t g[2][4] = {
                {weight_dot[0][c][0], weight_dot[0][c][1], weight_dot[0][c][2], weight_dot[0][c][3]},
                {weight_dot[1][c][0], weight_dot[1][c][1], weight_dot[1][c][2], weight_dot[1][c][3]}};
            product3(acc_dot[n / 8], acc_dot[n / 8 + 1], g, y);
          }
          if (v_dot) {
            ldmatrix_trans(y[0], values + (2 * N + c * 16) * kPitch + n);
            ldmatrix_trans(y[1], values + (3 * N + c * 16) * kPitch + n);
            product3(acc_dot[n / 8], acc_dot[n / 8 + 1], w, y);
          }
        }
      }
    }
  }
  copy_wait<0>();

  // Epilogue
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const float total = quad_sum(sum[i]), inverse = p.Lk > 0 ? __fdiv_rn(1.f, total) : 0.f,
                spread = quad_sum(mean[i]) * inverse;
    const int64_t row = q0 + warp * 16 + (lane >> 2) + i * 8;
    if (row >= p.Lq) continue;
    const int64_t to = row_offset(p.o_step, at.b, row, at.h);
#pragma unroll
    for (int n = 0; n < D / 8; ++n) {
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        const int c = n * 8 + (lane & 3) * 2 + e;
        if (c >= p.Kv) continue;
        const float y = __fmul_rn(acc[n][2 * i + e], inverse);
        p.o[to + c] = y;
        if constexpr (Dot) p.o_dot[to + c] = acc_dot[n][2 * i + e] * inverse - spread * y;
      }
    }
    if ((lane & 3) == 0)
      p.lse[(at.b * p.H + at.h) * p.Lq + row] = p.Lk > 0 ? __fmaf_rn(top[i], kLn2, logf(total)) : -INFINITY;
  }
}

constexpr size_t split_bytes(int d, int m, int n) { return (size_t)2 * 4 * (m + 2 * n) * pitch(d); }

template <int D, int M, int N, bool Dot>
void launch(int64_t B, const SplitMemory& p) {
  const int64_t blocks = B * p.H * ceil_div(p.Lq, M);
  if (blocks == 0) return;
  if (blocks > INT_MAX) fail(RCM_E_SHAPE, "attention: %lld tiles are too many for one launch", (long long)blocks);
  const size_t bytes = split_bytes(D, M, N) / (Dot ? 1 : 2);
  const auto kernel = split_kernel<D, M, N, Dot>;
  cuda_check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes), "shared memory");
  queue_kernel(kernel, (unsigned)blocks, M * 2, bytes, p);
}

template <int D>
void choose(int64_t B, const SplitMemory& p) {
  // The same tiles with and without tangents, so that both have the same primal.
  const bool large = p.Lq > 64 && split_bytes(D, 128, 32) <= gpu().shared_per_block;
  if (large) p.o_dot ? launch<D, 128, 32, true>(B, p) : launch<D, 128, 32, false>(B, p);
  else p.o_dot ? launch<D, 64, 32, true>(B, p) : launch<D, 64, 32, false>(B, p);
}

}  // namespace

bool split_applies(const AttentionShape& s) {
  const int64_t width = std::max(s.K, s.Kv);
  return split_products() && s.dtype == RCM_F32 && s.K % 8 == 0 && s.Kv % 8 == 0 && width <= 128 &&
         split_bytes(width <= 64 ? 64 : 128, 64, 32) <= gpu().shared_per_block;
}

void split_forward(const AttentionShape& s, const void* q, const void* k, const void* v, const void* q_dot,
                   const void* k_dot, const void* v_dot, void* o, void* o_dot, void* lse) {
  const int64_t sizes[3] = {s.B * s.Lq * s.H * s.K, s.B * s.Lk * s.H * s.K, s.B * s.Lk * s.H * s.Kv};
  const void* inputs[6] = {q, k, v, q_dot, k_dot, v_dot};
  const int64_t* steps[3] = {s.q, s.k, s.v};
  const int64_t lengths[3] = {s.Lq, s.Lk, s.Lk}, widths[3] = {s.K, s.K, s.Kv};
  size_t bytes = 0;
  for (int i = 0; i < 6; ++i) bytes += inputs[i] ? (size_t)ceil_div(sizes[i % 3] * 4, 256) * 256 : 0;
  Workspace memory(bytes);
  char* next = memory.as<char>();
  HighLow made[6] = {};
  for (int i = 0; i < 6; ++i) {
    if (!inputs[i]) continue;
    const int64_t n = sizes[i % 3], *step = steps[i % 3];
    bf16 *high = reinterpret_cast<bf16*>(next), *low = high + n;
    made[i] = {high, low};
    next += (size_t)ceil_div(n * 4, 256) * 256;
    if (n == 0) continue;
    const Strided offset{step[0], step[1], step[2], lengths[i % 3], s.H, widths[i % 3]};
    queue_high_low(static_cast<const float*>(inputs[i]), high, low, offset, n);
  }
  SplitMemory p{made[0],
                made[1],
                made[2],
                made[3],
                made[4],
                made[5],
                static_cast<float*>(o),
                static_cast<float*>(o_dot),
                static_cast<float*>(lse),
                {s.o[0], s.o[1], s.o[2]},
                s.Lq,
                s.Lk,
                s.H,
                (int)s.K,
                (int)s.Kv,
                (float)s.scale};
  std::max(s.K, s.Kv) <= 64 ? choose<64>(s.B, p) : choose<128>(s.B, p);
}

}  // namespace rcm
