// Attention with its tangent in one pass, by mma.sync (sm_80 and later), bf16 and f16.
//
// Idea: online softmax over tiles of keys; everything but the operands stays in registers.
//   a = sum e^(s-m) v,  h = sum e^(s-m) (s' v + v'),  r = sum e^(s-m) s';  o = a/l,  o' = h/l - (r/l) o.
// The primal is bitwise the same with and without tangents: the same tiles, the same order, explicit rounding in every
// sum.
// Tile: M queries (16 per warp) by N keys, chosen by with_tiles from what shared memory holds.
// Barriers: keys and values load alternately by cp.async; __syncthreads separates each load from its use and from its
// reuse.
#include <algorithm>
#include <climits>

#include "attention.cuh"
#include "cuda/ptx/mma.cuh"

namespace rcm {

using namespace ptx;

size_t generic_forward_bytes(int d, int m, int n, bool tangent) {
  return (size_t)(tangent ? 2 : 1) * 2 * ((m + n) * pitch(d) + n * pitch(output_columns(d)));
}

namespace {

constexpr float kLog2e = 1.4426950408889634f, kLn2 = 0.6931471805599453f;

struct ForwardMemory {
  const void *q, *k, *v, *q_dot, *k_dot, *v_dot;
  void *o, *o_dot;
  float* lse;
};

// s = q k^T and, with tangents, s_dot = q' k^T + q k'^T from the same loaded operands.
template <int D, int N, bool Dot, class T>
__device__ inline void scores(float (&s)[N / 8][4], float (&s_dot)[N / 8][4], const T* q, const T* k, const T* q_dot,
                              const T* k_dot) {
  if constexpr (!Dot) {
    product_abt<D, N>(s, q, k);
    return;
  }
  const int rows = piece_rows(pitch(D)), columns = piece_columns(pitch(D));
#pragma unroll
  for (int c = 0; c < D; c += 16) {
    uint32_t x[4], x_dot[4];
    ldmatrix(x, q + rows + c);
    if (q_dot) ldmatrix(x_dot, q_dot + rows + c);
#pragma unroll
    for (int n = 0; n < N; n += 16) {
      uint32_t y[4];
      ldmatrix(y, k + columns + n * pitch(D) + c);
      mma<T>(s[n / 8], x, y[0], y[1]);
      mma<T>(s[n / 8 + 1], x, y[2], y[3]);
      if (q_dot) {
        mma<T>(s_dot[n / 8], x_dot, y[0], y[1]);
        mma<T>(s_dot[n / 8 + 1], x_dot, y[2], y[3]);
      }
      if (k_dot) {
        ldmatrix(y, k_dot + columns + n * pitch(D) + c);
        mma<T>(s_dot[n / 8], x, y[0], y[1]);
        mma<T>(s_dot[n / 8 + 1], x, y[2], y[3]);
      }
    }
  }
}

// D: head width, M: queries per block (16 per warp), N: keys per step.
template <class T, int D, int M, int N, bool Dot>
__global__ void __launch_bounds__(M * 2, !Dot && D <= 64 ? 2 : 1)
    forward_kernel(const AttentionShape s, const ForwardMemory p, int chunks) {
  await_queued();
  constexpr int kThreads = M * 2, kOut = output_columns(D), kPitch = pitch(D), kPitchOut = pitch(kOut);

  // Shared memory
  extern __shared__ __align__(16) unsigned char shared[];
  T* const qs = reinterpret_cast<T*>(shared);
  T* const ks = qs + M * kPitch;
  T* const vs = ks + N * kPitch;
  T* const qds = vs + N * kPitchOut;
  T* const kds = qds + M * kPitch;
  T* const vds = kds + N * kPitch;
  const int warp = threadIdx.x >> 5, lane = threadIdx.x & 31;
  const Place at = place_of(blockIdx.x, (s.Lq + M - 1) / M, chunks, s.H);
  const int64_t q0 = at.tile * M;
  const int first = at.chunk * kOut, width = (int)s.K, out_width = (int)s.Kv - first;
  const float scale = (float)s.scale, scale2 = scale * kLog2e;

  // Loads
  const int64_t q_at = row_offset(s.q, at.b, 0, at.h), k_at = row_offset(s.k, at.b, 0, at.h),
                v_at = row_offset(s.v, at.b, 0, at.h) + first;
  auto load_q = [&](T* to, const void* from) {
    load_tile<M, D, kThreads>(to, static_cast<const T*>(from) + q_at, s.q[1], q0, s.Lq, width);
  };
  auto load_k = [&](T* to, const void* from, int64_t k0) {
    load_tile<N, D, kThreads>(to, static_cast<const T*>(from) + k_at, s.k[1], k0, s.Lk, width);
  };
  auto load_v = [&](T* to, const void* from, int64_t k0) {
    load_tile<N, kOut, kThreads>(to, static_cast<const T*>(from) + v_at, s.v[1], k0, s.Lk, out_width);
  };
  const bool q_dot = Dot && p.q_dot, k_dot = Dot && p.k_dot, v_dot = Dot && p.v_dot, cross = q_dot || k_dot;

  float acc[kOut / 8][4], acc_dot[kOut / 8][4];
  float top[2] = {-INFINITY, -INFINITY}, sum[2] = {0.f, 0.f}, mean[2] = {0.f, 0.f};
  clear(acc);
  if constexpr (Dot) clear(acc_dot);

  load_q(qs, p.q);
  if (q_dot) load_q(qds, p.q_dot);
  if (s.Lk > 0) {
    load_k(ks, p.k, 0);
    if (k_dot) load_k(kds, p.k_dot, 0);
  }
  copy_commit();

  for (int64_t k0 = 0; k0 < s.Lk; k0 += N) {
    // Keys of this step have arrived, and every warp has finished with the values of the last one.
    copy_wait<0>();
    __syncthreads();
    load_v(vs, p.v, k0);
    if (v_dot) load_v(vds, p.v_dot, k0);
    copy_commit();

    // Scores
    float sc[N / 8][4], sd[N / 8][4];
    clear(sc);
    if constexpr (Dot) clear(sd);
    scores<D, N, Dot>(sc, sd, qs + warp * 16 * kPitch, ks, q_dot ? qds + warp * 16 * kPitch : nullptr,
                      k_dot ? kds : nullptr);

#pragma unroll
    for (int n = 0; n < N / 8; ++n) {
#pragma unroll
      for (int e = 0; e < 4; ++e) sc[n][e] = __fmul_rn(sc[n][e], scale2);
    }
    if (k0 + N > s.Lk) {
      const int keys = (int)(s.Lk - k0);
#pragma unroll
      for (int n = 0; n < N / 8; ++n) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          if (n * 8 + (lane & 3) * 2 + (e & 1) >= keys) sc[n][e] = -INFINITY;
        }
      }
    }

    // Softmax
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      float high = top[i];
#pragma unroll
      for (int n = 0; n < N / 8; ++n) high = fmaxf(high, fmaxf(sc[n][2 * i], sc[n][2 * i + 1]));
      high = quad_max(high);
      const float shrink = exp2_fast(__fsub_rn(top[i], high));
      top[i] = high;
      float total = 0.f;
#pragma unroll
      for (int n = 0; n < N / 8; ++n) {
#pragma unroll
        for (int e = 2 * i; e < 2 * i + 2; ++e) {
          sc[n][e] = exp2_fast(__fsub_rn(sc[n][e], high));
          total = __fadd_rn(total, sc[n][e]);
        }
      }
      sum[i] = __fmaf_rn(sum[i], shrink, total);
#pragma unroll
      for (int n = 0; n < kOut / 8; ++n) {
        acc[n][2 * i] = __fmul_rn(acc[n][2 * i], shrink);
        acc[n][2 * i + 1] = __fmul_rn(acc[n][2 * i + 1], shrink);
      }
      if constexpr (Dot) {
#pragma unroll
        for (int n = 0; n < kOut / 8; ++n) {
          acc_dot[n][2 * i] *= shrink;
          acc_dot[n][2 * i + 1] *= shrink;
        }
        mean[i] *= shrink;
        if (cross) {
#pragma unroll
          for (int n = 0; n < N / 8; ++n) {
#pragma unroll
            for (int e = 2 * i; e < 2 * i + 2; ++e) sd[n][e] *= sc[n][e] * scale;
          }
        }
      }
    }
    uint32_t weight[N / 16][4], weight_dot[N / 16][4];
    to_operand<T>(weight, sc);
    if constexpr (Dot) {
      to_operand<T>(weight_dot, sd);
      // Sum P.S' as rounded for the multiply: where one key dominates, (P.S') v and r o then cancel exactly.
#pragma unroll
      for (int c = 0; c < N / 16; ++c) {
        mean[0] += sum_pair<T>(weight_dot[c][0]) + sum_pair<T>(weight_dot[c][2]);
        mean[1] += sum_pair<T>(weight_dot[c][1]) + sum_pair<T>(weight_dot[c][3]);
      }
    }

    // Values of this step have arrived, and every warp has finished with its keys.
    copy_wait<0>();
    __syncthreads();
    if (k0 + N < s.Lk) {
      load_k(ks, p.k, k0 + N);
      if (k_dot) load_k(kds, p.k_dot, k0 + N);
    }
    copy_commit();

    // Values
    if constexpr (Dot) {
      const int rows = piece_rows(kPitchOut);
#pragma unroll
      for (int c = 0; c < N / 16; ++c) {
#pragma unroll
        for (int n = 0; n < kOut; n += 16) {
          uint32_t y[4];
          ldmatrix_trans(y, vs + rows + c * 16 * kPitchOut + n);
          mma<T>(acc[n / 8], weight[c], y[0], y[1]);
          mma<T>(acc[n / 8 + 1], weight[c], y[2], y[3]);
          if (cross) {
            mma<T>(acc_dot[n / 8], weight_dot[c], y[0], y[1]);
            mma<T>(acc_dot[n / 8 + 1], weight_dot[c], y[2], y[3]);
          }
          if (v_dot) {
            ldmatrix_trans(y, vds + rows + c * 16 * kPitchOut + n);
            mma<T>(acc_dot[n / 8], weight[c], y[0], y[1]);
            mma<T>(acc_dot[n / 8 + 1], weight[c], y[2], y[3]);
          }
        }
      }
    } else {
      product_ab<kOut, kPitchOut>(acc, weight, vs);
    }
  }
  copy_wait<0>();

  // Epilogue
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const float total = quad_sum(sum[i]), inverse = s.Lk > 0 ? __fdiv_rn(1.f, total) : 0.f;
    const float spread = Dot ? quad_sum(mean[i]) * inverse : 0.f;
    const int64_t row = q0 + warp * 16 + (lane >> 2) + i * 8;
    if (row >= s.Lq) continue;
    const int64_t to = row_offset(s.o, at.b, row, at.h) + first;
#pragma unroll
    for (int n = 0; n < kOut / 8; ++n) {
      const int c = n * 8 + (lane & 3) * 2;
      if (c >= out_width) continue;
      const float low = __fmul_rn(acc[n][2 * i], inverse), high = __fmul_rn(acc[n][2 * i + 1], inverse);
      *reinterpret_cast<uint32_t*>(static_cast<T*>(p.o) + to + c) = pack_pair<T>(low, high);
      if constexpr (Dot) {
        const float low_dot = acc_dot[n][2 * i] * inverse - spread * low,
                    high_dot = acc_dot[n][2 * i + 1] * inverse - spread * high;
        *reinterpret_cast<uint32_t*>(static_cast<T*>(p.o_dot) + to + c) = pack_pair<T>(low_dot, high_dot);
      }
    }
    if (at.chunk == 0 && (lane & 3) == 0)
      p.lse[(at.b * s.H + at.h) * s.Lq + row] = __fmaf_rn(top[i], kLn2, logf(total));
  }
}

template <class T, int D, int M, int N, bool Dot>
void launch(const AttentionShape& s, const ForwardMemory& p) {
  const int chunks = (int)ceil_div(s.Kv, output_columns(D));
  const int64_t blocks = s.B * s.H * ceil_div(s.Lq, M) * chunks;
  if (blocks == 0) return;
  if (blocks > INT_MAX) fail(RCM_E_SHAPE, "attention: %lld tiles are too many for one launch", (long long)blocks);
  const size_t bytes = generic_forward_bytes(D, M, N, Dot);
  const auto kernel = forward_kernel<T, D, M, N, Dot>;
  cuda_check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes), "shared memory");
  queue_kernel(kernel, (unsigned)blocks, M * 2, bytes, s, p, chunks);
}

}  // namespace

void generic_forward(const AttentionShape& s, const void* q, const void* k, const void* v, const void* q_dot,
                     const void* k_dot, const void* v_dot, void* o, void* o_dot, void* lse) {
  const ForwardMemory p{q, k, v, q_dot, k_dot, v_dot, o, o_dot, static_cast<float*>(lse)};
  // The tile is the one that the tangent needs, also without a tangent, so that both have the same primal.
  const auto bytes = [](int d, int m, int n) { return generic_forward_bytes(d, m, n, true); };
  with_tiles(std::max(s.K, s.Kv), s.Lq, bytes, [&](auto d, auto m, auto n) {
    auto run = [&](auto zero) {
      using T = decltype(zero);
      if (o_dot) launch<T, decltype(d)::value, decltype(m)::value, decltype(n)::value, true>(s, p);
      else launch<T, decltype(d)::value, decltype(m)::value, decltype(n)::value, false>(s, p);
    };
    if (s.dtype == RCM_BF16) run(bf16{});
    else run(f16{});
  });
}

bool generic_aligned(std::initializer_list<const void*> memory) {
  for (const void* m : memory) {
    if (!aligned(m, 16)) return false;
  }
  return true;
}

bool generic_applies(const AttentionShape& s) {
  if ((s.dtype != RCM_BF16 && s.dtype != RCM_F16) || gpu().major < 8) return false;
  const int64_t width = std::max(s.K, s.Kv);
  if (width > 256 || s.K % 8 || s.Kv % 8) return false;
  for (const int64_t (*step)[3] : {&s.q, &s.k, &s.v, &s.o}) {
    for (int64_t n : *step) {
      if (n % 8) return false;
    }
  }
  const int d = width > 192 ? 256 : width > 128 ? 192 : 128;
  const size_t limit = gpu().shared_per_block;
  return generic_forward_bytes(d, 64, 32, true) <= limit && generic_backward_bytes(d, 64, 32) <= limit;
}

}  // namespace rcm
