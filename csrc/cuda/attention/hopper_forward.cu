// Attention forward on sm_90a.
//
// Idea: keys and values stream through a ring in shared memory while two warpgroups multiply. Per key tile each has in
// flight
//   S = q k^T of the next tile | o += P v
// and the second overlaps with P = exp(S - m) of the next tile. Blocks are persistent: they take one query tile after
// another without a gap in the stream of keys, so the last values of one tile multiply together with the first scores
// of the next.
// Tile: 2 x 64 queries, 128 keys. S and o take 64 + W / 2 registers a thread; larger key tiles were slower on short
// rows.
// Barriers: full/empty per ring slot, queries/queries_free per query buffer; named barriers 1 and 2 hand the tensor
// cores from one warpgroup to the other, 3 and 4 synchronise a warpgroup before its output is stored.
// Warp roles: warpgroup 0 is the producer (one thread issues copies), warpgroups 1 and 2 each compute 64 query rows.
#include <algorithm>

#include "hopper.cuh"

namespace rcm {
namespace {

using namespace ptx;

struct Maps {
  CUtensorMap q, k, v, o;
};

struct Sizes {
  int Lq, Lk, H;
  int tiles, query_tiles;  // per head: key tiles, query tiles
  int items;               // query tiles of all heads
  float scale, to_log2;    // of the scores, and of the scores as exponents of 2
};

// W: head width, N: keys per tile. Two query buffers: the next item's queries load while this one is computed.
template <int W, int N>
struct Layout {
  static constexpr int kColumnBlocks = W / 64;
  static constexpr int kQueryBytes = 2 * kRows * W * 2;
  static constexpr int kSlotBytes = N * W * 2;
  static constexpr int kFit = (232448 - 1024 - 256 - 2 * kQueryBytes) / kSlotBytes;
  static constexpr int kSlots = kFit < 8 ? kFit : 8;
  static constexpr int kBytes = 1024 + 256 + 2 * kQueryBytes + kSlots * kSlotBytes;
  static_assert(kSlots >= 4 && N % 16 == 0 && kSlotBytes % 1024 == 0, "tile");
};

template <class T, int W, int N>
__global__ void __launch_bounds__(384, 1)
    forward_kernel(const __grid_constant__ Maps maps, float* lse, const __grid_constant__ Sizes z) {
#if RCM_HOPPER_CODE
  using L = Layout<W, N>;
  // Shared memory
  extern __shared__ char raw[];
  char* shared = reinterpret_cast<char*>((reinterpret_cast<uintptr_t>(raw) + 1023) & ~(uintptr_t)1023);
  char* ring = shared + 2 * L::kQueryBytes;
  uint64_t* full = reinterpret_cast<uint64_t*>(ring + L::kSlots * L::kSlotBytes);
  uint64_t *empty = full + L::kSlots, *queries = empty + L::kSlots, *queries_free = queries + 2;

  // Fill barriers
  if (threadIdx.x == 0) {
    init_ring(full, empty, L::kSlots, 8);
    init_ring(queries, queries_free, 2, 2);
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
        const int buffer = n % 2, q0 = item % z.query_tiles * 2 * kRows, head = item / z.query_tiles % z.H,
                  batch = item / z.query_tiles / z.H;
        barrier_wait(queries_free + buffer, (n / 2 & 1) ^ 1);
        barrier_expect(queries + buffer, L::kQueryBytes);
        for (int h = 0; h < L::kColumnBlocks; ++h) {
          copy_box(shared + buffer * L::kQueryBytes + h * 2 * kRows * 128, &maps.q, queries + buffer, h * 64, q0, head,
                   batch);
        }
      };
      int slot = 0, phase = 0;
      load_queries(blockIdx.x, 0);
      for (int item = blockIdx.x, n = 0; item < z.items; item += gridDim.x, ++n) {
        const int head = item / z.query_tiles % z.H, batch = item / z.query_tiles / z.H;
        for (int step = 0; step < 2 * z.tiles; ++step) {
          barrier_wait(empty + slot, phase ^ 1);
          barrier_expect(full + slot, L::kSlotBytes);
          for (int h = 0; h < L::kColumnBlocks; ++h) {
            copy_box(ring + slot * L::kSlotBytes + h * N * 128, step & 1 ? &maps.v : &maps.k, full + slot, h * 64,
                     (step >> 1) * N, head, batch);
          }
          if (++slot == L::kSlots) slot = 0, phase ^= 1;
        }
        if (item + (int)gridDim.x < z.items) load_queries(item + gridDim.x, n + 1);
      }
    }
  } else {
    // Consumer warpgroups
    registers_raise<240>();
    const int lane = threadIdx.x % 32;
    const uint32_t ring_base = shared_address(ring), query_base = shared_address(shared) + (group - 1) * kRows * 128;
    float o[W / 2], s[N / 2];
    uint32_t p[N / 4];
    SoftmaxRows rows;
    int slot = 0, phase = 0;
    const auto next = [&] {
      if (++slot == L::kSlots) slot = 0, phase ^= 1;
    };
    const auto release = [&](int at) {
      if (lane == 0) barrier_arrive(empty + at);
    };
    const auto scores = [&](int at, int buffer) {
      const uint32_t k_base = ring_base + at * L::kSlotBytes, q_base = query_base + buffer * L::kQueryBytes;
#pragma unroll
      for (int c = 0; c < W / 16; ++c) {
        const uint64_t query = wgmma_operand(q_base + (c / 4) * 2 * kRows * 128 + c % 4 * 32, 0),
                       key = wgmma_operand(k_base + (c / 4) * N * 128 + c % 4 * 32, 0);
        c == 0 ? Wgmma<N, T>::first(s, query, key) : Wgmma<N, T>::shared(s, query, key);
      }
      wgmma_commit();
    };
    const auto values = [&](int at) {
      const uint32_t v_base = ring_base + at * L::kSlotBytes;
#pragma unroll
      for (int c = 0; c < N / 16; ++c) Wgmma<W, T>::registers(o, p + 4 * c, wgmma_operand(v_base + c * 2048, N * 128));
      wgmma_commit();
    };
    const auto weights = [&](int tile) {
      if (tile == z.tiles - 1 && z.Lk % N != 0) mask_columns(s, z.Lk - tile * N, lane);
      rows.weigh(s, z.to_log2);
    };
    const auto pack = [&] {
#pragma unroll
      for (int j = 0; j < N / 8; ++j) {
        p[2 * j] = pack_pair<T>(s[4 * j], s[4 * j + 1]);
        p[2 * j + 1] = pack_pair<T>(s[4 * j + 2], s[4 * j + 3]);
      }
    };
    // Tensor-core turns: barrier 1 lets warpgroup 1 multiply, barrier 2 warpgroup 2.
    if (group == 2) named_arrive(1, 256);

    // First scores
    barrier_wait(queries, 0);
    barrier_wait(full, 0);
    wgmma_fence();
    scores(0, 0);
    wgmma_wait<0>();
    pin(s);
    release(0);
    for (int item = blockIdx.x, n = 0; item < z.items; item += gridDim.x, ++n) {
      rows.start();
#pragma unroll
      for (int i = 0; i < W / 2; ++i) o[i] = 0;
      weights(0);
      pack();
      // The previous item's outputs are staged in its query buffer: hand it back once the copy engine has read them.
      if (n > 0 && reload_thread_index() % 128 == 0) {
        store_wait_read();
        barrier_arrive(queries_free + (n + 1) % 2);
      }
      for (int tile = 1; tile < z.tiles; ++tile) {
        next();
        const int value_slot = slot;
        barrier_wait(full + slot, phase);
        next();
        barrier_wait(full + slot, phase);

        // Multiply
        named_sync(group, 256);
        pin(o);
        pin(p);
        wgmma_fence();
        scores(slot, n % 2);
        values(value_slot);
        named_arrive(3 - group, 256);
        wgmma_wait<1>();
        pin(s);
        release(slot);

        // Softmax
        weights(tile);
        wgmma_wait<0>();
        pin(o);
        pin(p);
        release(value_slot);

        // Rescale
        if (rows.shrinks) {
#pragma unroll
          for (int i = 0; i < W / 2; ++i) o[i] *= i & 2 ? rows.shrink1 : rows.shrink0;
        }
        pack();
      }

      // Last values, with the first scores of the next item
      const bool has_next = item + (int)gridDim.x < z.items;
      next();
      const int value_slot = slot;
      barrier_wait(full + slot, phase);
      if (has_next) {
        next();
        barrier_wait(queries + (n + 1) % 2, (n + 1) / 2 & 1);
        barrier_wait(full + slot, phase);
      }
      named_sync(group, 256);
      pin(o);
      pin(p);
      wgmma_fence();
      values(value_slot);
      scores(slot, (n + 1) % 2);  // without a next item: stale scores, discarded
      named_arrive(3 - group, 256);
      wgmma_wait<0>();
      pin(s);
      pin(o);
      pin(p);
      release(value_slot);
      if (has_next) release(slot);

      // Row sums
      const int q0 = item % z.query_tiles * 2 * kRows + (group - 1) * kRows, head = item / z.query_tiles % z.H,
                batch = item / z.query_tiles / z.H;
      const int thread = reload_thread_index(), row = q0 + thread / 32 % 4 * 16 + thread % 32 / 4;
      const float sum0 = quad_sum(rows.sum0), sum1 = quad_sum(rows.sum1);
      if (thread % 4 == 0) {
        float* out = lse + ((int64_t)batch * z.H + head) * z.Lq;
        if (row < z.Lq) out[row] = rows.top0 * z.scale + logf(sum0);
        if (row + 8 < z.Lq) out[row + 8] = rows.top1 * z.scale + logf(sum1);
      }
      // Epilogue: outputs are staged in the query buffer; each warpgroup touches only its own rows.
      char* stage = shared + n % 2 * L::kQueryBytes + (group - 1) * kRows * 128;
      stage_tile<T, W>(o, 1 / sum0, 1 / sum1, stage, 2 * kRows * 128);
      fence_async_proxy();
      named_sync(group + 2, 128);
      if (thread % 128 == 0) {
        for (int h = 0; h < L::kColumnBlocks && q0 < z.Lq; ++h)
          store_box(&maps.o, stage + h * 2 * kRows * 128, h * 64, q0, head, batch);
        store_commit();
      }
    }
    if (group == 1) named_sync(1, 256);  // balances the barrier: the other group's last arrive has no partner
    if (threadIdx.x % 128 == 0) store_wait_read();
  }
#endif
}

template <class T, int W, int N>
bool launch(const AttentionShape& s, const void* q, const void* k, const void* v, void* o, float* lse) {
  using L = Layout<W, N>;
  Maps m;
  if (!tensor_map(&m.q, q, s.dtype, s.B, s.Lq, s.H, W, s.q, 2 * kRows) ||
      !tensor_map(&m.o, o, s.dtype, s.B, s.Lq, s.H, W, s.o, kRows) ||
      !tensor_map(&m.k, k, s.dtype, s.B, s.Lk, s.H, W, s.k, N) ||
      !tensor_map(&m.v, v, s.dtype, s.B, s.Lk, s.H, W, s.v, N)) {
    return false;
  }
  const int64_t items = ceil_div(s.Lq, 2 * kRows) * s.H * s.B;
  if (items > INT32_MAX / 2) return false;
  auto* kernel = forward_kernel<T, W, N>;
  cuda_check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, L::kBytes), "shared memory");
  const Sizes z{(int)s.Lq,
                (int)s.Lk,
                (int)s.H,
                (int)ceil_div(s.Lk, N),
                (int)ceil_div(s.Lq, 2 * kRows),
                (int)items,
                (float)s.scale,
                (float)(s.scale * 1.4426950408889634)};
  const int64_t blocks = std::min<int64_t>(items, gpu().sms);
  queue_kernel(kernel, (unsigned)blocks, 384, L::kBytes, m, lse, z);
  return true;
}

template <class T>
bool dispatch(const AttentionShape& s, const void* q, const void* k, const void* v, void* o, float* lse) {
  return s.K == 128 ? launch<T, 128, 128>(s, q, k, v, o, lse) : launch<T, 64, 128>(s, q, k, v, o, lse);
}

}  // namespace

bool hopper_forward(const AttentionShape& s, const void* q, const void* k, const void* v, void* o, float* lse) {
  if (!hopper_takes(s)) return false;
  return s.dtype == RCM_BF16 ? dispatch<bf16>(s, q, k, v, o, lse) : dispatch<f16>(s, q, k, v, o, lse);
}

}  // namespace rcm
