// Attention backward on sm_90a.
//
// Idea: two passes of one kernel, so that every output has one writer, no atomics are needed and every run gives the
// same bits.
//   P = exp(S - lse), dS = P.(dP - D)
//   keys pass:    rows are keys.    S = k q^T, dP = v o_bar^T:  v_bar += P o_bar, k_bar += dS q
//   queries pass: rows are queries. S = q k^T, dP = o_bar v^T:  q_bar += dS k
// Seven products instead of five, at the rate of the tangent kernel: as fast as cuDNN's backward.
// Tile: 2 x 64 resident rows; tiles of N of the other side pass through the ring. N is 80 (keys pass) and 64 (queries
// pass) at width 128, so that two accumulators, S and dP fit in 240 registers; 128 at width 64.
// Barriers: full/empty per ring slot, `resident` for the rows; named barriers 1 and 2 hand the tensor cores from one
// warpgroup to the other, 3 and 4 synchronise a warpgroup before its output is stored.
// Warp roles: warpgroup 0 is the producer (one thread issues copies), warpgroups 1 and 2 each compute 64 resident rows.
#include <algorithm>

#include "hopper.cuh"

namespace rcm {
namespace {

using namespace ptx;

struct Maps {
  CUtensorMap row1, row2;    // k, v or q, o_bar: 128 rows, resident in shared memory
  CUtensorMap tile1, tile2;  // q, o_bar or k, v: tiles of N, streamed through the ring
  CUtensorMap out1, out2;    // k_bar, v_bar or q_bar
};

struct Sizes {
  int rows, columns;      // tokens of the resident and of the streamed side
  int H, padded;          // padded: stride of the per-query vectors
  int splits, per_split;  // the streamed side, in parts of per_split tiles
  bool want1, want2;
};

template <int W, int N, bool Keys>
struct Layout {
  static constexpr int kColumnBlocks = W / 64;
  static constexpr int kRowBytes = 2 * kRows * W * 2;
  static constexpr int kTileBytes = N * W * 2;
  static constexpr int kVectorBytes = Keys ? 2 * N * 4 : 0;
  static constexpr int kFit = (232448 - 256 - 2 * kRowBytes) / (2 * kTileBytes + kVectorBytes);
  static constexpr int kSlots = kFit < 4 ? kFit : 4;
  static constexpr int kBytes = 256 + 2 * kRowBytes + kSlots * (2 * kTileBytes + kVectorBytes);
  static_assert(kSlots >= 2 && N % 16 == 0 && kTileBytes % 1024 == 0, "tile");
};

// log2_lse and delta [B*H, padded] hold lse log2(e) and rowsum(o_bar o), padded with +inf and 0. With splits, sums go
// to partial [splits][2][B*H][rows][W] in f32.
template <class T, int W, int N, bool Keys>
__global__ void __launch_bounds__(384, 1) backward_kernel(const __grid_constant__ Maps maps, const float* log2_lse,
                                                          const float* delta, float* partial, Sizes z, float scale) {
#if RCM_HOPPER_CODE
  using L = Layout<W, N, Keys>;
  // Shared memory
  extern __shared__ __align__(1024) char shared[];
  char *row1 = shared, *row2 = shared + L::kRowBytes, *ring = row2 + L::kRowBytes;
  float* vectors = reinterpret_cast<float*>(ring + L::kSlots * 2 * L::kTileBytes);
  uint64_t* full = reinterpret_cast<uint64_t*>(reinterpret_cast<char*>(vectors) + L::kSlots * L::kVectorBytes);
  uint64_t *empty = full + L::kSlots, *resident = empty + L::kSlots;

  // Work assignment
  const int r0 = blockIdx.x / z.splits * 2 * kRows, split = blockIdx.x % z.splits, head = blockIdx.y,
            batch = blockIdx.z;
  const int all_tiles = (z.columns + N - 1) / N, first = split * z.per_split,
            last = min(all_tiles, first + z.per_split);
  const int64_t pair = (int64_t)batch * z.H + head;

  // Fill barriers
  if (threadIdx.x == 0) {
    init_ring(full, empty, L::kSlots, 8);
    barrier_init(resident, 1);
    barrier_init_fence();
  }
  await_queued();
  __syncthreads();
  const int group = __shfl_sync(0xffffffffu, (int)threadIdx.x / 128, 0);

  if (group == 0) {
    // Producer warp
    registers_lower<24>();
    if (threadIdx.x == 0) {
      barrier_expect(resident, 2 * L::kRowBytes);
      for (int h = 0; h < L::kColumnBlocks; ++h) {
        copy_box(row1 + h * 2 * kRows * 128, &maps.row1, resident, h * 64, r0, head, batch);
        copy_box(row2 + h * 2 * kRows * 128, &maps.row2, resident, h * 64, r0, head, batch);
      }
      int slot = 0, phase = 0;
      for (int tile = first; tile < last; ++tile) {
        barrier_wait(empty + slot, phase ^ 1);
        barrier_expect(full + slot, 2 * L::kTileBytes + L::kVectorBytes);
        char* to = ring + slot * 2 * L::kTileBytes;
        for (int h = 0; h < L::kColumnBlocks; ++h) {
          copy_box(to + h * N * 128, &maps.tile1, full + slot, h * 64, tile * N, head, batch);
          copy_box(to + L::kTileBytes + h * N * 128, &maps.tile2, full + slot, h * 64, tile * N, head, batch);
        }
        if constexpr (Keys) {
          copy_line(vectors + slot * 2 * N, log2_lse + pair * z.padded + tile * N, N * 4, full + slot);
          copy_line(vectors + slot * 2 * N + N, delta + pair * z.padded + tile * N, N * 4, full + slot);
        }
        if (++slot == L::kSlots) slot = 0, phase ^= 1;
      }
    }
  } else {
    // Consumer warpgroups
    registers_raise<240>();
    const int warp = threadIdx.x / 32 % 4, lane = threadIdx.x % 32;
    const uint32_t base1 = shared_address(row1) + (group - 1) * kRows * 128, base2 = base1 + L::kRowBytes,
                   ring_base = shared_address(ring);
    const float to_log2 = scale * 1.4426950408889634f;
    float acc1[W / 2] = {}, acc2[Keys ? W / 2 : 1] = {}, s[N / 2], dp[N / 2];
    uint32_t p[Keys ? N / 4 : 1], g[N / 4];
    float lse0 = 0, lse1 = 0, delta0 = 0, delta1 = 0;
    if constexpr (!Keys) {
      // The vectors are padded to whole blocks of 128 rows, so these loads stay in bounds.
      const int64_t row = pair * z.padded + r0 + (group - 1) * kRows + warp * 16 + lane / 4;
      lse0 = log2_lse[row], lse1 = log2_lse[row + 8];
      delta0 = delta[row], delta1 = delta[row + 8];
    }
    const auto product = [&](float (&d)[N / 2], uint32_t rows_at, uint32_t tile_at) {
#pragma unroll
      for (int c = 0; c < W / 16; ++c) {
        const uint64_t row = wgmma_operand(rows_at + (c / 4) * 2 * kRows * 128 + c % 4 * 32, 0),
                       column = wgmma_operand(tile_at + (c / 4) * N * 128 + c % 4 * 32, 0);
        c == 0 ? Wgmma<N, T>::first(d, row, column) : Wgmma<N, T>::shared(d, row, column);
      }
      wgmma_commit();
    };
    const auto scores = [&](int at) { product(s, base1, ring_base + at * 2 * L::kTileBytes); };
    const auto score_bars = [&](int at) { product(dp, base2, ring_base + at * 2 * L::kTileBytes + L::kTileBytes); };
    const auto accumulate = [&](int at) {
      const uint32_t tile1 = ring_base + at * 2 * L::kTileBytes, tile2 = tile1 + L::kTileBytes;
#pragma unroll
      for (int c = 0; c < N / 16; ++c) {
        if constexpr (Keys) Wgmma<W, T>::registers(acc2, p + 4 * c, wgmma_operand(tile2 + c * 2048, N * 128));
        Wgmma<W, T>::registers(acc1, g + 4 * c, wgmma_operand(tile1 + c * 2048, N * 128));
      }
      wgmma_commit();
    };
    const auto pin_sums = [&] {
      pin(acc1);
      pin(acc2);
      pin(p);
      pin(g);
    };
    // Turns the scores s into the weights P.
    const auto weights = [&](int tile, int at) {
      if (!Keys && tile == all_tiles - 1 && z.columns % N != 0) {
        // Keys beyond the end were loaded as zeros: their score of 0 may be far above lse, and Inf * 0 must not reach
        // the sums.
        mask_columns(s, z.columns - tile * N, lane);
      }
      const float* line = vectors + at * 2 * N;
#pragma unroll
      for (int j = 0; j < N / 8; ++j) {
        float2 low = {lse0, lse0}, high = {lse1, lse1};
        if constexpr (Keys) low = high = *reinterpret_cast<const float2*>(line + 8 * j + lane % 4 * 2);
        s[4 * j] = exp2_fast(fmaf(s[4 * j], to_log2, -low.x)),
              s[4 * j + 1] = exp2_fast(fmaf(s[4 * j + 1], to_log2, -low.y));
        s[4 * j + 2] = exp2_fast(fmaf(s[4 * j + 2], to_log2, -high.x)),
                  s[4 * j + 3] = exp2_fast(fmaf(s[4 * j + 3], to_log2, -high.y));
      }
    };
    const auto pack = [&](int at) {
      const float* line = vectors + at * 2 * N + N;
#pragma unroll
      for (int j = 0; j < N / 8; ++j) {
        float2 low = {delta0, delta0}, high = {delta1, delta1};
        if constexpr (Keys) {
          low = high = *reinterpret_cast<const float2*>(line + 8 * j + lane % 4 * 2);
          p[2 * j] = pack_pair<T>(s[4 * j], s[4 * j + 1]);
          p[2 * j + 1] = pack_pair<T>(s[4 * j + 2], s[4 * j + 3]);
        }
        g[2 * j] = pack_pair<T>(s[4 * j] * (dp[4 * j] - low.x), s[4 * j + 1] * (dp[4 * j + 1] - low.y));
        g[2 * j + 1] = pack_pair<T>(s[4 * j + 2] * (dp[4 * j + 2] - high.x), s[4 * j + 3] * (dp[4 * j + 3] - high.y));
      }
    };
    // Tensor-core turns: barrier 1 lets warpgroup 1 multiply, barrier 2 warpgroup 2.
    if (group == 2) named_arrive(1, 256);
    int slot = 0, phase = 0;
    barrier_wait(resident, 0);
    if (first < last) {
      // First tile
      barrier_wait(full, 0);
      wgmma_fence();
      scores(0);
      score_bars(0);
      wgmma_wait<0>();
      pin(s);
      pin(dp);
      weights(first, 0);
      pack(0);
      for (int tile = first + 1; tile < last; ++tile) {
        const int done = slot;
        if (++slot == L::kSlots) slot = 0, phase ^= 1;
        barrier_wait(full + slot, phase);

        // Multiply
        named_sync(group, 256);
        pin_sums();
        wgmma_fence();
        accumulate(done);
        scores(slot);
        named_arrive(3 - group, 256);
        wgmma_wait<1>();
        pin_sums();
        if (lane == 0) barrier_arrive(empty + done);
        // The multiplies have read P and dS, so dP may take their registers.
        wgmma_fence();
        score_bars(slot);
        wgmma_wait<1>();
        pin(s);

        // Softmax
        weights(tile, slot);
        wgmma_wait<0>();
        pin(dp);
        pack(slot);
      }

      // Last tile
      named_sync(group, 256);
      pin_sums();
      wgmma_fence();
      accumulate(slot);
      named_arrive(3 - group, 256);
      wgmma_wait<0>();
      pin_sums();
    }
    if (group == 1) named_sync(1, 256);  // balances the barrier: the other group's last arrive has no partner
    const int thread = reload_thread_index(), row = r0 + (group - 1) * kRows + thread / 32 % 4 * 16 + thread % 32 / 4;
    if (z.splits > 1) {
      // Partial sums
      const int64_t pairs = (int64_t)gridDim.z * z.H, plane = pairs * z.rows * W;
      float* to = partial + split * 2 * plane + pair * z.rows * W + thread % 4 * 2;
#pragma unroll
      for (int j = 0; j < W / 8; ++j) {
        if (row < z.rows)
          *reinterpret_cast<float2*>(to + (int64_t)row * W + 8 * j) = {acc1[4 * j] * scale, acc1[4 * j + 1] * scale};
        if (row + 8 < z.rows)
          *reinterpret_cast<float2*>(to + (int64_t)(row + 8) * W + 8 * j) = {acc1[4 * j + 2] * scale,
                                                                             acc1[4 * j + 3] * scale};
        if constexpr (Keys) {
          if (row < z.rows)
            *reinterpret_cast<float2*>(to + plane + (int64_t)row * W + 8 * j) = {acc2[4 * j], acc2[4 * j + 1]};
          if (row + 8 < z.rows)
            *reinterpret_cast<float2*>(to + plane + (int64_t)(row + 8) * W + 8 * j) = {acc2[4 * j + 2],
                                                                                       acc2[4 * j + 3]};
        }
      }
    } else {
      // Epilogue: outputs are staged where the resident rows were; each warpgroup touches only its own rows.
      char* stage = row1 + (group - 1) * kRows * 128;
      stage_tile<T, W>(acc1, scale, scale, stage, 2 * kRows * 128);
      if constexpr (Keys) stage_tile<T, W>(acc2, 1, 1, stage + L::kRowBytes, 2 * kRows * 128);
      fence_async_proxy();
      named_sync(group + 2, 128);
      const int from = r0 + (group - 1) * kRows;
      if (thread % 128 == 0 && from < z.rows) {
        for (int h = 0; h < L::kColumnBlocks; ++h) {
          if (z.want1) store_box(&maps.out1, stage + h * 2 * kRows * 128, h * 64, from, head, batch);
          if (Keys && z.want2)
            store_box(&maps.out2, stage + L::kRowBytes + h * 2 * kRows * 128, h * 64, from, head, batch);
        }
        store_commit();
        store_wait_read();
      }
    }
  }
#endif
}

// One warp per query: log2_lse and delta, padded.
template <class T>
__global__ void __launch_bounds__(256)
    prepare_kernel(const T* o, const T* o_bar, const float* lse, float* log2_lse, float* delta, int64_t os0,
                   int64_t os1, int64_t os2, int Lq, int H, int W, int padded, int64_t total) {
  await_queued();
  const int64_t at = (int64_t)blockIdx.x * 8 + threadIdx.x / 32;
  if (at >= total) return;
  const int lane = threadIdx.x % 32, q = (int)(at % padded);
  const int64_t pair = at / padded;
  float sum = 0;
  if (q < Lq) {
    const int64_t base = pair / H * os0 + q * os1 + pair % H * os2;
    for (int i = lane * 2; i < W; i += 64) {
      float a[2], b[2];
      load_pack<2>(o + base + i, a);
      load_pack<2>(o_bar + base + i, b);
      sum += a[0] * b[0] + a[1] * b[1];
    }
    sum = warp_sum(sum);
  }
  if (lane == 0) {
    log2_lse[at] = q < Lq ? lse[pair * Lq + q] * 1.4426950408889634f : INFINITY;
    delta[at] = sum;
  }
}

// Adds the partial sums of k_bar or v_bar in order.
template <class T>
__global__ void __launch_bounds__(256) gather_kernel(const float* partial, T* out, int splits, int64_t plane,
                                                     int64_t s0, int64_t s1, int64_t s2, int rows, int H, int W) {
  await_queued();
  const int64_t n = plane / 2;
  for (int64_t i = (int64_t)blockIdx.x * 256 + threadIdx.x; i < n; i += (int64_t)gridDim.x * 256) {
    float2 sum = {0, 0};
    for (int k = 0; k < splits; ++k) {
      const float2 v = reinterpret_cast<const float2*>(partial + k * 2 * plane)[i];
      sum.x += v.x, sum.y += v.y;
    }
    const int64_t e = 2 * i, w = e % W, r = e / W % rows, pair = e / W / rows;
    *reinterpret_cast<uint32_t*>(out + pair / H * s0 + r * s1 + pair % H * s2 + w) = pack_pair<T>(sum.x, sum.y);
  }
}

struct Side {
  const void *data1, *data2;
  int64_t tokens;
  const int64_t *strides1, *strides2;
};

template <class T, int W, int N, bool Keys>
bool pass(const AttentionShape& s, const Side& rows, const Side& tiles, void* out1, void* out2, const float* log2_lse,
          const float* delta, int padded) {
  using L = Layout<W, N, Keys>;
  Maps m;
  const auto map = [&](CUtensorMap* to, const void* data, int64_t tokens, const int64_t* strides, int box) {
    return tensor_map(to, data, s.dtype, s.B, tokens, s.H, W, strides, box);
  };
  if (!map(&m.row1, rows.data1, rows.tokens, rows.strides1, 2 * kRows) ||
      !map(&m.row2, rows.data2, rows.tokens, rows.strides2, 2 * kRows) ||
      !map(&m.tile1, tiles.data1, tiles.tokens, tiles.strides1, N) ||
      !map(&m.tile2, tiles.data2, tiles.tokens, tiles.strides2, N)) {
    return false;
  }
  m.out1 = m.out2 = m.row1;
  if (out1 && !map(&m.out1, out1, rows.tokens, rows.strides1, kRows)) return false;
  if (out2 && !map(&m.out2, out2, rows.tokens, rows.strides2, kRows)) return false;
  const int64_t blocks = ceil_div(rows.tokens, 2 * kRows), count = ceil_div(tiles.tokens, N), pairs = s.B * s.H;
  // Few key tiles and many queries (cross attention): split the queries so that every processor has work.
  int64_t splits = 1;
  if (Keys && blocks * pairs < 2 * gpu().sms)
    splits = std::max<int64_t>(1, std::min<int64_t>({4 * gpu().sms / (blocks * pairs), count / 8, 64}));
  const int64_t per_split = ceil_div(count, splits), plane = pairs * rows.tokens * W;
  splits = ceil_div(count, per_split);
  Workspace partial(splits > 1 ? (size_t)(splits * 2 * plane) * 4 : 0);
  const Sizes z{(int)rows.tokens, (int)tiles.tokens, (int)s.H,        padded,
                (int)splits,      (int)per_split,    out1 != nullptr, out2 != nullptr};
  auto* kernel = backward_kernel<T, W, N, Keys>;
  cuda_check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, L::kBytes), "shared memory");
  queue_kernel(kernel, dim3((unsigned)(blocks * splits), (unsigned)s.H, (unsigned)s.B), 384, L::kBytes, m, log2_lse,
               delta, partial.as<float>(), z, (float)s.scale);
  if (splits > 1) {
    const unsigned grid = (unsigned)std::min<int64_t>(ceil_div(plane / 2, 256), 8 * gpu().sms);
    const auto gather = [&](void* out, const float* from, const int64_t* strides) {
      if (out) {
        queue_kernel(gather_kernel<T>, grid, 256, 0, from, static_cast<T*>(out), (int)splits, plane, strides[0],
                     strides[1], strides[2], z.rows, z.H, W);
      }
    };
    gather(out1, partial.as<float>(), rows.strides1);
    gather(out2, partial.as<float>() + plane, rows.strides2);
  }
  return true;
}

template <class T, int W, int N, int NQ>
bool run(const AttentionShape& s, const void* q, const void* k, const void* v, const void* o, const float* lse,
         const void* o_bar, void* q_bar, void* k_bar, void* v_bar) {
  const int64_t padded = ceil_div(s.Lq, 2 * kRows) * 2 * kRows + N, total = s.B * s.H * padded;
  Workspace vectors((size_t)(2 * total) * 4);
  float *log2_lse = vectors.as<float>(), *delta = log2_lse + total;
  queue_kernel(prepare_kernel<T>, (unsigned)ceil_div(total, 8), 256, 0, static_cast<const T*>(o),
               static_cast<const T*>(o_bar), lse, log2_lse, delta, s.o[0], s.o[1], s.o[2], (int)s.Lq, (int)s.H, W,
               (int)padded, total);
  const Side keys{k, v, s.Lk, s.k, s.v}, queries{q, o_bar, s.Lq, s.q, s.o};
  if ((k_bar || v_bar) && !pass<T, W, N, true>(s, keys, queries, k_bar, v_bar, log2_lse, delta, (int)padded))
    return false;
  return !q_bar || pass<T, W, NQ, false>(s, queries, keys, q_bar, nullptr, log2_lse, delta, (int)padded);
}

template <class T>
bool dispatch(const AttentionShape& s, const void* q, const void* k, const void* v, const void* o, const float* lse,
              const void* o_bar, void* q_bar, void* k_bar, void* v_bar) {
  return s.K == 128 ? run<T, 128, 80, 64>(s, q, k, v, o, lse, o_bar, q_bar, k_bar, v_bar)
                    : run<T, 64, 128, 128>(s, q, k, v, o, lse, o_bar, q_bar, k_bar, v_bar);
}

}  // namespace

bool hopper_backward(const AttentionShape& s, const void* q, const void* k, const void* v, const void* o,
                     const float* lse, const void* o_bar, void* q_bar, void* k_bar, void* v_bar) {
  if (!hopper_takes(s)) return false;
  return s.dtype == RCM_BF16 ? dispatch<bf16>(s, q, k, v, o, lse, o_bar, q_bar, k_bar, v_bar)
                             : dispatch<f16>(s, q, k, v, o, lse, o_bar, q_bar, k_bar, v_bar);
}

}  // namespace rcm
