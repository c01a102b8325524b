// Attention backward by mma.sync (sm_80 and later), bf16 and f16, with P recomputed from lse.
//
// Idea: with D = rowsum(o_bar o), P = e^(s - lse) and dS = P (o_bar v^T - D):
//   v_bar = P^T o_bar,  k_bar = scale dS^T q,  q_bar = scale dS k.
// One kernel runs twice: its blocks own rows (keys, then queries) and pass over the others, so every sum has one writer
// and one order. When it owns keys it forms S^T and dS^T directly, so that accumulators are operands of the next
// product without leaving registers.
// Tile: M own rows (16 per warp) by N others, chosen by with_tiles from what shared memory holds; two stages of others.
// Barriers: cp.async fills one stage while the other is used; __syncthreads separates a stage's use from its reuse.
#include <algorithm>
#include <climits>

#include "attention.cuh"
#include "cuda/ptx/mma.cuh"

namespace rcm {

using namespace ptx;

namespace {

constexpr float kLog2e = 1.4426950408889634f;

// Operands 0 (q and k) give the scores, operands 1 (o_bar and v) the cotangent of P.
struct BackwardMemory {
  const void *own[2], *other[2];
  int64_t own_step[2][3], other_step[2][3];
  const float *lse, *dots;  // [B,H,Lq]
  void* out[2];             // [0] scale dS other[0]; [1] P other[1]; shaped as the own operands; null: not wanted
  int64_t own_rows, other_rows, H;
  int width[2];
  float scale;
};

constexpr size_t tile_bytes(int d, int m, int n) { return (size_t)2 * (2 * m + 4 * n) * pitch(d); }

template <class T, int D, int M, int N, bool OwnKeys>
__global__ void __launch_bounds__(M * 2, 1) backward_kernel(const BackwardMemory p, int chunks) {
  await_queued();
  constexpr int kThreads = M * 2, kOut = output_columns(D), kPitch = pitch(D);

  // Shared memory
  extern __shared__ __align__(16) unsigned char shared[];
  T* const own0 = reinterpret_cast<T*>(shared);
  T* const own1 = own0 + M * kPitch;
  // [stage][operand][N][kPitch]
  T* const others = own1 + M * kPitch;
  // [stage][lse, dots][N], where queries are the others
  float* const stats = reinterpret_cast<float*>(others + 4 * N * kPitch);
  const int warp = threadIdx.x >> 5, lane = threadIdx.x & 31;
  const Place at = place_of(blockIdx.x, (p.own_rows + M - 1) / M, chunks, p.H);
  const int64_t first_row = at.tile * M, head = at.b * p.H + at.h;
  const int first = at.chunk * kOut;
  const float scale2 = p.scale * kLog2e;
  const T* const from0 = static_cast<const T*>(p.other[0]) + row_offset(p.other_step[0], at.b, 0, at.h);
  const T* const from1 = static_cast<const T*>(p.other[1]) + row_offset(p.other_step[1], at.b, 0, at.h);
  const bool want0 = p.out[0] != nullptr, want1 = OwnKeys && p.out[1] != nullptr;

  // Loads
  auto load_others = [&](int64_t row, int stage) {
    T* const to = others + stage * 2 * N * kPitch;
    load_tile<N, D, kThreads>(to, from0, p.other_step[0][1], row, p.other_rows, p.width[0]);
    load_tile<N, D, kThreads>(to + N * kPitch, from1, p.other_step[1][1], row, p.other_rows, p.width[1]);
    if (OwnKeys && threadIdx.x < 2 * N) {
      const int i = threadIdx.x % N;
      const float* const from = (threadIdx.x < N ? p.lse : p.dots) + head * p.other_rows;
      const bool valid = row + i < p.other_rows;
      copy4(stats + stage * 2 * N + threadIdx.x, valid ? from + row + i : from, valid);
    }
  };

  load_tile<M, D, kThreads>(own0, static_cast<const T*>(p.own[0]) + row_offset(p.own_step[0], at.b, 0, at.h),
                            p.own_step[0][1], first_row, p.own_rows, p.width[0]);
  load_tile<M, D, kThreads>(own1, static_cast<const T*>(p.own[1]) + row_offset(p.own_step[1], at.b, 0, at.h),
                            p.own_step[1][1], first_row, p.own_rows, p.width[1]);
  if (p.other_rows > 0) load_others(0, 0);
  copy_commit();

  float shift[2] = {0.f, 0.f}, dots[2] = {0.f, 0.f};
  if constexpr (!OwnKeys) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int64_t row = first_row + warp * 16 + (lane >> 2) + i * 8;
      if (row < p.own_rows)
        shift[i] = p.lse[head * p.own_rows + row] * kLog2e, dots[i] = p.dots[head * p.own_rows + row];
    }
  }
  float acc0[kOut / 8][4], acc1[kOut / 8][4];
  clear(acc0);
  if constexpr (OwnKeys) clear(acc1);

  int stage = 0;
  for (int64_t row = 0; row < p.other_rows; row += N, stage ^= 1) {
    if (row + N < p.other_rows) load_others(row + N, stage ^ 1);
    copy_commit();
    copy_wait<1>();
    __syncthreads();
    const T* const other0 = others + stage * 2 * N * kPitch;
    const T* const other1 = other0 + N * kPitch;
    const float* const stat = stats + stage * 2 * N + (lane & 3) * 2;

    // Weights
    float w[N / 8][4];
    clear(w);
    product_abt<D, N>(w, own0 + warp * 16 * kPitch, other0);
#pragma unroll
    for (int n = 0; n < N / 8; ++n) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const float s = OwnKeys ? stat[n * 8 + (e & 1)] * kLog2e : shift[e >> 1];
        w[n][e] = exp2_fast(fmaf(w[n][e], scale2, -s));
      }
    }
    // Keys beyond the end were loaded as zeros; their weight e^(-lse) may be Inf. Queries beyond the end give zeros
    // anyway.
    if (!OwnKeys && row + N > p.other_rows) {
      const int keys = (int)(p.other_rows - row);
#pragma unroll
      for (int n = 0; n < N / 8; ++n) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          if (n * 8 + (lane & 3) * 2 + (e & 1) >= keys) w[n][e] = 0.f;
        }
      }
    }

    // Products
    uint32_t operand[N / 16][4];
    if (want1) {
      to_operand<T>(operand, w);
      product_ab<kOut, kPitch>(acc1, operand, other1 + first);
    }
    if (want0) {
      float ds[N / 8][4];
      clear(ds);
      product_abt<D, N>(ds, own1 + warp * 16 * kPitch, other1);
#pragma unroll
      for (int n = 0; n < N / 8; ++n) {
#pragma unroll
        for (int e = 0; e < 4; ++e)
          ds[n][e] = w[n][e] * (ds[n][e] - (OwnKeys ? stat[N + n * 8 + (e & 1)] : dots[e >> 1]));
      }
      to_operand<T>(operand, ds);
      product_ab<kOut, kPitch>(acc0, operand, other0 + first);
    }
    __syncthreads();  // before the next step's copies overwrite this stage
  }
  copy_wait<0>();

  // Epilogue
  auto store = [&](const float (&acc)[kOut / 8][4], int which, float factor) {
    T* const to = static_cast<T*>(p.out[which]);
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int64_t row = first_row + warp * 16 + (lane >> 2) + i * 8;
      if (row >= p.own_rows) continue;
      const int64_t offset = row_offset(p.own_step[which], at.b, row, at.h) + first;
#pragma unroll
      for (int n = 0; n < kOut / 8; ++n) {
        const int c = n * 8 + (lane & 3) * 2;
        if (first + c < p.width[which])
          *reinterpret_cast<uint32_t*>(to + offset + c) =
              pack_pair<T>(acc[n][2 * i] * factor, acc[n][2 * i + 1] * factor);
      }
    }
  };
  if (want0) store(acc0, 0, p.scale);
  if constexpr (OwnKeys) {
    if (want1) store(acc1, 1, 1.f);
  }
}

template <class T, int D, int M, int N, bool OwnKeys>
void launch(int64_t B, const BackwardMemory& p) {
  const int widest = std::max(p.out[0] ? p.width[0] : 0, p.out[1] ? p.width[1] : 0);
  const int chunks = (int)ceil_div(widest, output_columns(D));
  const int64_t blocks = B * p.H * ceil_div(p.own_rows, M) * chunks;
  if (blocks == 0) return;
  if (blocks > INT_MAX) fail(RCM_E_SHAPE, "attention: %lld tiles are too many for one launch", (long long)blocks);
  const size_t bytes = generic_backward_bytes(D, M, N);
  const auto kernel = backward_kernel<T, D, M, N, OwnKeys>;
  cuda_check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes), "shared memory");
  queue_kernel(kernel, (unsigned)blocks, M * 2, bytes, p, chunks);
}

void set(int64_t (&to)[3], const int64_t (&from)[3]) { std::copy(from, from + 3, to); }

template <bool OwnKeys>
void backward(const AttentionShape& s, const BackwardMemory& p) {
  with_tiles(std::max(s.K, s.Kv), p.own_rows, generic_backward_bytes, [&](auto d, auto m, auto n) {
    auto run = [&](auto zero) {
      launch<decltype(zero), decltype(d)::value, decltype(m)::value, decltype(n)::value, OwnKeys>(s.B, p);
    };
    if (s.dtype == RCM_BF16) run(bf16{});
    else run(f16{});
  });
}

}  // namespace

size_t generic_backward_bytes(int d, int m, int n) { return tile_bytes(d, m, n) + (size_t)4 * n * sizeof(float); }

void generic_backward(const AttentionShape& s, const void* q, const void* k, const void* v, const void* o,
                      const void* lse, const void* o_bar, void* q_bar, void* k_bar, void* v_bar) {
  Workspace dots((size_t)(s.B * s.H * s.Lq) * sizeof(float));
  if (q_bar || k_bar) attention_row_dots(s, o, o_bar, dots.as<void>());
  BackwardMemory p{};
  p.lse = static_cast<const float*>(lse);
  p.dots = dots.as<float>();
  p.H = s.H;
  p.width[0] = (int)s.K;
  p.width[1] = (int)s.Kv;
  p.scale = (float)s.scale;
  auto fill = [&](const void*(&memory)[2], int64_t (&step)[2][3], bool keys) {
    memory[0] = keys ? k : q;
    memory[1] = keys ? v : o_bar;
    set(step[0], keys ? s.k : s.q);
    set(step[1], keys ? s.v : s.o);
  };
  if (k_bar || v_bar) {
    fill(p.own, p.own_step, true);
    fill(p.other, p.other_step, false);
    p.own_rows = s.Lk, p.other_rows = s.Lq, p.out[0] = k_bar, p.out[1] = v_bar;
    backward<true>(s, p);
  }
  if (q_bar) {
    fill(p.own, p.own_step, false);
    fill(p.other, p.other_step, true);
    p.own_rows = s.Lq, p.other_rows = s.Lk, p.out[0] = q_bar, p.out[1] = nullptr;
    backward<false>(s, p);
  }
}

}  // namespace rcm
