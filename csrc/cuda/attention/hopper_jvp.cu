// Attention and its tangent in one pass on sm_90a.
//
// Idea: keys and values (and their tangents) stream through a ring in shared memory; per key tile each warpgroup has in
// flight
//   o += P v, o' += P v' + H v | S = q k^T of the next tile | S' = q' k^T + q k'^T of the next tile
// S' overlaps with P = exp(S - m); forming H = P.S' overlaps with the other warpgroup's multiplies. S' takes the
// registers that P and H leave. H is formed from P before rounding, and H v and P v' share one accumulator. Where only
// queries carry a tangent (cross attention, short rows of keys) blocks are persistent and take one query tile after
// another without a gap in the keys.
// Tile: 2 x 64 queries; 64 keys at width 128, 128 keys at width 64, so that o, o', S and S' fit in 240 registers.
// Barriers: full/empty per ring slot, queries/queries_free per query buffer; named barriers 1 and 2 hand the tensor
// cores from one warpgroup to the other, 3 and 4 synchronise a warpgroup before its output is stored.
// Warp roles: warpgroup 0 is the producer (one thread issues copies), warpgroups 1 and 2 each compute 64 query rows.
#include <algorithm>

#include "hopper.cuh"

namespace rcm {
namespace {

using namespace ptx;

struct Maps {
  CUtensorMap q, k, v, q_dot, k_dot, v_dot, o, o_dot;
};

struct Sizes {
  int Lq, Lk, H;
  int tiles, query_tiles;  // per head: key tiles, query tiles
  int items;               // query tiles of all heads
  float scale, to_log2;    // of the scores, and of the scores as exponents of 2
};

// W: head width, N: keys per tile; All: k and v carry tangents too, else only q.
template <class T, int W, int N, bool All>
struct Layout {
  static constexpr int kColumnBlocks = W / 64;
  static constexpr int kQueryBytes = 2 * kRows * W * 2;          // q of both warpgroups
  static constexpr int kTileBytes = N * W * 2;                   // one of k, k', v, v'
  static constexpr int kSlotBytes = kTileBytes * (All ? 2 : 1);  // k and k', or v and v'
  // Without tangents of k and v the rows of keys are short: blocks are persistent and need a second query buffer.
  static constexpr int kQueryBuffers = All ? 1 : 2;
  static constexpr int kFit = (232448 - 1024 - 256 - kQueryBuffers * 2 * kQueryBytes) / kSlotBytes;
  static constexpr int kSlots = kFit < 8 ? kFit : 8;
  static constexpr int kBytes = 1024 + 256 + kQueryBuffers * 2 * kQueryBytes + kSlots * kSlotBytes;
  static_assert(kSlots >= 2 && N % 16 == 0 && kTileBytes % 1024 == 0, "tile");
};

template <class T, int W, int N, bool All>
__global__ void __launch_bounds__(384, 1)
    jvp_kernel(const __grid_constant__ Maps maps, float* lse, const __grid_constant__ Sizes z) {
#if RCM_HOPPER_CODE
  using L = Layout<T, W, N, All>;
  constexpr int QB = L::kQueryBuffers;
  // Shared memory
  extern __shared__ char raw[];
  char* shared = reinterpret_cast<char*>((reinterpret_cast<uintptr_t>(raw) + 1023) & ~(uintptr_t)1023);
  char* ring = shared + QB * 2 * L::kQueryBytes;
  uint64_t* full = reinterpret_cast<uint64_t*>(ring + L::kSlots * L::kSlotBytes);
  uint64_t *empty = full + L::kSlots, *queries = empty + L::kSlots, *queries_free = queries + QB;

  // Fill barriers
  if (threadIdx.x == 0) {
    init_ring(full, empty, L::kSlots, 8);
    init_ring(queries, queries_free, QB, 2);
    barrier_init_fence();
  }
  await_queued();
  __syncthreads();
  const int group = __shfl_sync(0xffffffffu, (int)threadIdx.x / 128, 0);

  if (group == 0) {
    // Producer warp
    registers_lower<24>();
    if (threadIdx.x == 0) {
      const auto load_queries = [&](int item, int n) {
        const int buffer = n % QB, q0 = item % z.query_tiles * 2 * kRows, head = item / z.query_tiles % z.H,
                  batch = item / z.query_tiles / z.H;
        char* to = shared + buffer * 2 * L::kQueryBytes;
        barrier_wait(queries_free + buffer, (n / QB & 1) ^ 1);
        barrier_expect(queries + buffer, 2 * L::kQueryBytes);
        for (int h = 0; h < L::kColumnBlocks; ++h) {
          copy_box(to + h * 2 * kRows * 128, &maps.q, queries + buffer, h * 64, q0, head, batch);
          copy_box(to + L::kQueryBytes + h * 2 * kRows * 128, &maps.q_dot, queries + buffer, h * 64, q0, head, batch);
        }
      };
      int slot = 0, phase = 0;
      load_queries(blockIdx.x, 0);
      for (int item = blockIdx.x, n = 0; item < z.items; item += gridDim.x, ++n) {
        const int head = item / z.query_tiles % z.H, batch = item / z.query_tiles / z.H;
        for (int step = 0; step < 2 * z.tiles; ++step) {
          barrier_wait(empty + slot, phase ^ 1);
          barrier_expect(full + slot, L::kSlotBytes);
          char* to = ring + slot * L::kSlotBytes;
          const bool value = step & 1;
          for (int h = 0; h < L::kColumnBlocks; ++h) {
            copy_box(to + h * N * 128, value ? &maps.v : &maps.k, full + slot, h * 64, (step >> 1) * N, head, batch);
            if constexpr (All) {
              copy_box(to + L::kTileBytes + h * N * 128, value ? &maps.v_dot : &maps.k_dot, full + slot, h * 64,
                       (step >> 1) * N, head, batch);
            }
          }
          if (++slot == L::kSlots) slot = 0, phase ^= 1;
        }
        if (item + (int)gridDim.x < z.items) load_queries(item + gridDim.x, n + 1);
      }
    }
  } else {
    // Consumer warpgroups
    registers_raise<240>();
    const int warp = threadIdx.x / 32 % 4, lane = threadIdx.x % 32;
    const uint32_t ring_base = shared_address(ring), query_base = shared_address(shared) + (group - 1) * kRows * 128;
    // bf16 has enough range to multiply S' by the scale only at the end.
    constexpr bool DeferScale = !All && std::is_same<T, bf16>::value;
    float o[W / 2], od[W / 2], s[N / 2], sd[N / 2];
    uint32_t p[N / 4], g[N / 4];
    SoftmaxRows rows;
    float cross0, cross1;
    int slot = 0, phase = 0;
    const auto next = [&] {
      if (++slot == L::kSlots) slot = 0, phase ^= 1;
    };
    const auto release = [&](int at) {
      if (lane == 0) barrier_arrive(empty + at);
    };
    const auto operand = [&](int buffer, bool dot, int c) {
      return wgmma_operand(query_base + (2 * buffer + dot) * L::kQueryBytes + (c / 4) * 2 * kRows * 128 + c % 4 * 32,
                           0);
    };
    const auto scores = [&](int at, int buffer) {
      const uint32_t base = ring_base + at * L::kSlotBytes;
#pragma unroll
      for (int c = 0; c < W / 16; ++c) {
        const uint64_t query = operand(buffer, false, c), key = wgmma_operand(base + (c / 4) * N * 128 + c % 4 * 32, 0);
        c == 0 ? Wgmma<N, T>::first(s, query, key) : Wgmma<N, T>::shared(s, query, key);
      }
      wgmma_commit();
    };
    const auto score_tangents = [&](int at, int buffer) {
      const uint32_t base = ring_base + at * L::kSlotBytes;
#pragma unroll
      for (int c = 0; c < W / 16; ++c) {
        const uint32_t at_key = base + (c / 4) * N * 128 + c % 4 * 32;
        const uint64_t query_dot = operand(buffer, true, c), key = wgmma_operand(at_key, 0);
        c == 0 ? Wgmma<N, T>::first(sd, query_dot, key) : Wgmma<N, T>::shared(sd, query_dot, key);
        if constexpr (All) Wgmma<N, T>::shared(sd, operand(buffer, false, c), wgmma_operand(at_key + L::kTileBytes, 0));
      }
      wgmma_commit();
    };
    const auto values = [&](int at) {
      const uint32_t base = ring_base + at * L::kSlotBytes;
#pragma unroll
      for (int c = 0; c < N / 16; ++c) {
        const uint64_t value = wgmma_operand(base + c * 2048, N * 128);
        Wgmma<W, T>::registers(o, p + 4 * c, value);
        Wgmma<W, T>::registers(od, g + 4 * c, value);
        if constexpr (All)
          Wgmma<W, T>::registers(od, p + 4 * c, wgmma_operand(base + L::kTileBytes + c * 2048, N * 128));
      }
      wgmma_commit();
    };
    const auto pin_sums = [&] {
      pin(o);
      pin(od);
      pin(p);
      pin(g);
    };
    const auto weights = [&](int tile) {
      if (tile == z.tiles - 1 && z.Lk % N != 0) mask_columns(s, z.Lk - tile * N, lane);
      rows.weigh(s, z.to_log2);
    };
    const auto pack = [&] {
#pragma unroll
      for (int j = 0; j < N / 8; ++j) {
#pragma unroll
        for (int i = 4 * j; i < 4 * j + 4; ++i) sd[i] = s[i] * (DeferScale ? sd[i] : sd[i] * z.scale);
        p[2 * j] = pack_pair<T>(s[4 * j], s[4 * j + 1]);
        p[2 * j + 1] = pack_pair<T>(s[4 * j + 2], s[4 * j + 3]);
        g[2 * j] = pack_pair<T>(sd[4 * j], sd[4 * j + 1]);
        g[2 * j + 1] = pack_pair<T>(sd[4 * j + 2], sd[4 * j + 3]);
        // Sum H as rounded for the multiply: where one key dominates, H v and rowsum(H) o then cancel exactly.
        const float2 low = unpack_pair<T>(g[2 * j]), high = unpack_pair<T>(g[2 * j + 1]);
        cross0 += low.x + low.y;
        cross1 += high.x + high.y;
      }
    };
    // Tensor-core turns: barrier 1 lets warpgroup 1 multiply, barrier 2 warpgroup 2.
    if (group == 2) named_arrive(1, 256);
    // o += P v, o' += H v + P v', and S and S' of the next keys; S' is still in flight on return.
    const auto multiply = [&](int value_slot, int key_slot, int buffer) {
      named_sync(group, 256);
      pin_sums();
      wgmma_fence();
      values(value_slot);
      scores(key_slot, buffer);
      named_arrive(3 - group, 256);
      wgmma_wait<1>();
      pin_sums();
      release(value_slot);
      // The multiplies have read P and H, so S' may take their registers.
      wgmma_fence();
      score_tangents(key_slot, buffer);
    };

    // First scores
    barrier_wait(queries, 0);
    barrier_wait(full, 0);
    wgmma_fence();
    scores(0, 0);
    score_tangents(0, 0);
    wgmma_wait<0>();
    pin(s);
    pin(sd);
    release(0);
    for (int item = blockIdx.x, n = 0; item < z.items; item += gridDim.x, ++n) {
      rows.start();
      cross0 = cross1 = 0;
#pragma unroll
      for (int i = 0; i < W / 2; ++i) o[i] = od[i] = 0;
      weights(0);
      pack();
      // The previous item's outputs are staged in its query buffer: hand it back once the copy engine has read them.
      if (n > 0 && reload_thread_index() % 128 == 0) {
        store_wait_read();
        barrier_arrive(queries_free + (n + 1) % QB);
      }
      for (int tile = 1; tile < z.tiles; ++tile) {
        next();
        const int value_slot = slot;
        barrier_wait(full + slot, phase);
        next();
        barrier_wait(full + slot, phase);

        // Multiply
        multiply(value_slot, slot, n % QB);
        wgmma_wait<1>();
        pin(s);

        // Softmax
        weights(tile);
        wgmma_wait<0>();
        pin(sd);
        release(slot);

        // Rescale
        if (rows.shrinks) {
          cross0 *= rows.shrink0, cross1 *= rows.shrink1;
#pragma unroll
          for (int i = 0; i < W / 2; ++i) {
            o[i] *= i & 2 ? rows.shrink1 : rows.shrink0;
            od[i] *= i & 2 ? rows.shrink1 : rows.shrink0;
          }
        }
        pack();
      }

      // Last values, with the first scores of the next item
      const bool has_next = QB > 1 && item + (int)gridDim.x < z.items;
      next();
      const int value_slot = slot;
      barrier_wait(full + slot, phase);
      if (has_next) {
        next();
        barrier_wait(queries + (n + 1) % QB, (n + 1) / QB & 1);
        barrier_wait(full + slot, phase);
      }
      multiply(value_slot, slot, (n + 1) % QB);  // without a next item: stale scores, discarded
      wgmma_wait<0>();
      pin(s);
      pin(sd);
      pin_sums();
      if (has_next) release(slot);

      // Row sums
      const int q0 = item % z.query_tiles * 2 * kRows + (group - 1) * kRows, head = item / z.query_tiles % z.H,
                batch = item / z.query_tiles / z.H;
      const int thread = reload_thread_index(), row = q0 + thread / 32 % 4 * 16 + thread % 32 / 4;
      const float sum0 = quad_sum(rows.sum0), sum1 = quad_sum(rows.sum1);
      cross0 = quad_sum(cross0), cross1 = quad_sum(cross1);
      const float inverse0 = 1 / sum0, inverse1 = 1 / sum1;
      if (thread % 4 == 0) {
        float* out = lse + ((int64_t)batch * z.H + head) * z.Lq;
        if (row < z.Lq) out[row] = rows.top0 * z.scale + logf(sum0);
        if (row + 8 < z.Lq) out[row + 8] = rows.top1 * z.scale + logf(sum1);
      }
      // Epilogue: outputs are staged in the query buffer; each warpgroup touches only its own rows.
      char* stage = shared + n % QB * 2 * L::kQueryBytes + (group - 1) * kRows * 128;
      const float dot = DeferScale ? z.scale : 1, dot0 = inverse0 * dot, dot1 = inverse1 * dot,
                  mean0 = cross0 * inverse0, mean1 = cross1 * inverse1;
      stage_tile<T, W>(o, inverse0, inverse1, stage, 2 * kRows * 128);
      stage_values<T, W>([&](int i) { return (od[i] - (i & 2 ? mean1 : mean0) * o[i]) * (i & 2 ? dot1 : dot0); },
                         stage + L::kQueryBytes, 2 * kRows * 128);
      fence_async_proxy();
      named_sync(group + 2, 128);
      if (thread % 128 == 0) {
        for (int h = 0; h < L::kColumnBlocks && q0 < z.Lq; ++h) {
          store_box(&maps.o, stage + h * 2 * kRows * 128, h * 64, q0, head, batch);
          store_box(&maps.o_dot, stage + L::kQueryBytes + h * 2 * kRows * 128, h * 64, q0, head, batch);
        }
        store_commit();
      }
      if (QB == 1) break;
    }
    if (group == 1) named_sync(1, 256);  // balances the barrier: the other group's last arrive has no partner
    if (threadIdx.x % 128 == 0) store_wait_read();
  }
#endif
}

template <class T, int W, int N, bool All>
bool launch(const AttentionShape& s, const void* q, const void* k, const void* v, const void* q_dot, const void* k_dot,
            const void* v_dot, void* o, void* o_dot, float* lse) {
  using L = Layout<T, W, N, All>;
  Maps m;
  const auto query = [&](CUtensorMap* map, const void* data, const int64_t* strides, int rows) {
    return tensor_map(map, data, s.dtype, s.B, s.Lq, s.H, W, strides, rows);
  };
  const auto key = [&](CUtensorMap* map, const void* data, const int64_t* strides) {
    return tensor_map(map, data, s.dtype, s.B, s.Lk, s.H, W, strides, N);
  };
  bool fits = query(&m.q, q, s.q, 2 * kRows) && query(&m.q_dot, q_dot, s.q, 2 * kRows) && query(&m.o, o, s.o, kRows) &&
              query(&m.o_dot, o_dot, s.o, kRows) && key(&m.k, k, s.k) && key(&m.v, v, s.v);
  if (All) fits = fits && key(&m.k_dot, k_dot, s.k) && key(&m.v_dot, v_dot, s.v);
  if (!fits) return false;
  auto* kernel = jvp_kernel<T, W, N, All>;
  cuda_check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, L::kBytes), "shared memory");
  const int64_t items = ceil_div(s.Lq, 2 * kRows) * s.H * s.B;
  if (items > INT32_MAX / 2) return false;
  const int64_t blocks = All ? items : std::min<int64_t>(items, gpu().sms);
  const Sizes z{(int)s.Lq,
                (int)s.Lk,
                (int)s.H,
                (int)ceil_div(s.Lk, N),
                (int)ceil_div(s.Lq, 2 * kRows),
                (int)items,
                (float)s.scale,
                (float)(s.scale * 1.4426950408889634)};
  queue_kernel(kernel, (unsigned)blocks, 384, L::kBytes, m, lse, z);
  return true;
}

template <class T>
bool dispatch(const AttentionShape& s, const void* q, const void* k, const void* v, const void* q_dot,
              const void* k_dot, const void* v_dot, void* o, void* o_dot, float* lse) {
  const bool all = k_dot && v_dot;
  if (s.K == 128) {
    return all ? launch<T, 128, 64, true>(s, q, k, v, q_dot, k_dot, v_dot, o, o_dot, lse)
               : launch<T, 128, 64, false>(s, q, k, v, q_dot, k_dot, v_dot, o, o_dot, lse);
  }
  return all ? launch<T, 64, 128, true>(s, q, k, v, q_dot, k_dot, v_dot, o, o_dot, lse)
             : launch<T, 64, 128, false>(s, q, k, v, q_dot, k_dot, v_dot, o, o_dot, lse);
}

}  // namespace

bool hopper_jvp(const AttentionShape& s, const void* q, const void* k, const void* v, const void* q_dot,
                const void* k_dot, const void* v_dot, void* o, void* o_dot, float* lse) {
  const bool tangents = q_dot && (k_dot != nullptr) == (v_dot != nullptr);
  if (!tangents || !hopper_takes(s)) return false;
  return s.dtype == RCM_BF16 ? dispatch<bf16>(s, q, k, v, q_dot, k_dot, v_dot, o, o_dot, lse)
                             : dispatch<f16>(s, q, k, v, q_dot, k_dot, v_dot, o, o_dot, lse);
}

}  // namespace rcm
