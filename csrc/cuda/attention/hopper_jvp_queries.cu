// Attention and its tangent on sm_90a where only the queries carry one (cross attention: keys come from the prompt). Sequences of keys are
// short, so that what happens between two query tiles counts: blocks stay and take tile after tile, without a break in the stream of keys.
// A producer warp feeds keys and values through a ring in shared memory, and the next queries into a second buffer; two warpgroups of 64
// query rows take turns:
//   S, S' = q k^T, q' k^T of the next keys, o += P v, o' += H v | exponentials and H = P.S' of the next keys, while the other multiplies
#include <algorithm>

#include "hopper.cuh"

namespace rcm {
namespace {

using namespace ptx;

struct Maps {
  CUtensorMap q, k, v, q_dot, o, o_dot;
};

struct Sizes {
  int Lq, Lk, H;
  int tiles, query_tiles, items;  // of keys, of queries, of queries in all heads
  float scale, to_log2;           // of scores, and of scores as powers of two
};

constexpr float kSlack = 4;  // f16 keeps room for P.S'

template <int W, int N>
struct Layout {
  static constexpr int kHalves = W / 64;
  static constexpr int kQueryBytes = 2 * kRows * W * 2;  // q of both warpgroups; a buffer holds q and q'
  static constexpr int kSlotBytes = N * W * 2;
  static constexpr int kFit = (232448 - 1024 - 256 - 4 * kQueryBytes) / kSlotBytes;
  static constexpr int kSlots = kFit < 8 ? kFit : 8;
  static constexpr int kBytes = 1024 + 256 + 4 * kQueryBytes + kSlots * kSlotBytes;
  static_assert(kSlots >= 4 && N % 16 == 0 && kSlotBytes % 1024 == 0, "tile");
};

template <class T, int W, int N>
__global__ void __launch_bounds__(384, 1) queries_kernel(const __grid_constant__ Maps maps, float* lse, const __grid_constant__ Sizes z) {
#if RCM_HOPPER_CODE
  using L = Layout<W, N>;
  extern __shared__ char raw[];
  char* shared = reinterpret_cast<char*>((reinterpret_cast<uintptr_t>(raw) + 1023) & ~(uintptr_t)1023);
  char* ring = shared + 4 * L::kQueryBytes;
  uint64_t* full = reinterpret_cast<uint64_t*>(ring + L::kSlots * L::kSlotBytes);
  uint64_t *empty = full + L::kSlots, *queries = empty + L::kSlots, *queries_free = queries + 2;
  if (threadIdx.x == 0) {
    for (int i = 0; i < L::kSlots; ++i) {
      barrier_init(full + i, 1);
      barrier_init(empty + i, 8);
    }
    for (int i = 0; i < 2; ++i) {
      barrier_init(queries + i, 1);
      barrier_init(queries_free + i, 2);
    }
    barrier_init_fence();
  }
  __syncthreads();
  const int group = __shfl_sync(0xffffffffu, (int)threadIdx.x / 128, 0);

  if (group == 0) {
    registers_lower<24>();
    if (threadIdx.x == 0) {
      const auto load_queries = [&](int item, int n) {
        const int buffer = n % 2, q0 = item % z.query_tiles * 2 * kRows, head = item / z.query_tiles % z.H, batch = item / z.query_tiles / z.H;
        char* to = shared + buffer * 2 * L::kQueryBytes;
        barrier_wait(queries_free + buffer, (n / 2 & 1) ^ 1);
        barrier_expect(queries + buffer, 2 * L::kQueryBytes);
        for (int h = 0; h < L::kHalves; ++h) {
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
          for (int h = 0; h < L::kHalves; ++h) {
            copy_box(ring + slot * L::kSlotBytes + h * N * 128, step & 1 ? &maps.v : &maps.k, full + slot, h * 64, (step >> 1) * N, head, batch);
          }
          if (++slot == L::kSlots) slot = 0, phase ^= 1;
        }
        if (item + (int)gridDim.x < z.items) load_queries(item + gridDim.x, n + 1);
      }
    }
  } else {
    registers_raise<240>();
    const int warp = threadIdx.x / 32 % 4, lane = threadIdx.x % 32;
    const uint32_t ring_base = shared_address(ring), query_base = shared_address(shared) + (group - 1) * kRows * 128;
    // bf16 has the range to leave the scale of S' to the end.
    constexpr bool Late = std::is_same<T, bf16>::value;
    float o[W / 2], od[W / 2], s[N / 2], sd[N / 2];
    uint32_t p[N / 4], g[N / 4];
    float top0, top1, sum0, sum1, cross0, cross1, shrink0 = 1, shrink1 = 1;
    bool shrinks = false;
    int slot = 0, phase = 0;
    const auto next = [&] {
      if (++slot == L::kSlots) slot = 0, phase ^= 1;
    };
    const auto release = [&](int at) {
      if (lane == 0) barrier_arrive(empty + at);
    };
    const auto fresh = [&] {
      top0 = top1 = -INFINITY;
      sum0 = sum1 = cross0 = cross1 = 0;
#pragma unroll
      for (int i = 0; i < W / 2; ++i) o[i] = od[i] = 0;
    };
    const auto scores = [&](int at, int buffer) {
      const uint32_t k_base = ring_base + at * L::kSlotBytes, q_base = query_base + buffer * 2 * L::kQueryBytes;
#pragma unroll
      for (int c = 0; c < W / 16; ++c) {
        const uint64_t key = wgmma_operand(k_base + (c / 4) * N * 128 + c % 4 * 32, 0), at_q = wgmma_operand(q_base + (c / 4) * 2 * kRows * 128 + c % 4 * 32, 0);
        c == 0 ? Wgmma<N, T>::first(s, at_q, key) : Wgmma<N, T>::shared(s, at_q, key, 1);
      }
#pragma unroll
      for (int c = 0; c < W / 16; ++c) {
        const uint64_t key = wgmma_operand(k_base + (c / 4) * N * 128 + c % 4 * 32, 0);
        const uint64_t at_q = wgmma_operand(q_base + L::kQueryBytes + (c / 4) * 2 * kRows * 128 + c % 4 * 32, 0);
        c == 0 ? Wgmma<N, T>::first(sd, at_q, key) : Wgmma<N, T>::shared(sd, at_q, key, 1);
      }
      wgmma_commit();
    };
    const auto values = [&](int at) {
      const uint32_t v_base = ring_base + at * L::kSlotBytes;
#pragma unroll
      for (int c = 0; c < N / 16; ++c) {
        const uint64_t value = wgmma_operand(v_base + c * 2048, N * 128);
        Wgmma<W, T>::registers(o, p + 4 * c, value, 1);
        Wgmma<W, T>::registers(od, g + 4 * c, value, 1);
      }
      wgmma_commit();
    };
    // P in s and P.S' in sd, and what the old sums shrink by. Sums are relative to `top`, which may lag the true maximum a little:
    // rescaling waits until a weight would pass 2^kSlack.
    const auto softmax = [&](int tile) {
      if (tile == z.tiles - 1 && z.Lk % N != 0) {
        const int left = z.Lk - tile * N;
#pragma unroll
        for (int j = 0; j < N / 8; ++j) {
          const int column = 8 * j + lane % 4 * 2;
          if (column >= left) s[4 * j] = s[4 * j + 2] = -INFINITY;
          if (column + 1 >= left) s[4 * j + 1] = s[4 * j + 3] = -INFINITY;
        }
      }
      float high0 = top0, high1 = top1;
#pragma unroll
      for (int j = 0; j < N / 8; ++j) {
        high0 = fmaxf(high0, fmaxf(s[4 * j], s[4 * j + 1]));
        high1 = fmaxf(high1, fmaxf(s[4 * j + 2], s[4 * j + 3]));
      }
      high0 = quad_max(high0);
      high1 = quad_max(high1);
      shrinks = __any_sync(0xffffffffu, (high0 - top0) * z.to_log2 > kSlack || (high1 - top1) * z.to_log2 > kSlack);
      if (shrinks) {
        shrink0 = exp2_fast((top0 - high0) * z.to_log2), shrink1 = exp2_fast((top1 - high1) * z.to_log2);
        top0 = high0, top1 = high1;
        sum0 *= shrink0, cross0 *= shrink0;
        sum1 *= shrink1, cross1 *= shrink1;
      }
      const float base0 = top0 * z.to_log2, base1 = top1 * z.to_log2;
#pragma unroll
      for (int j = 0; j < N / 8; ++j) {
        s[4 * j] = exp2_fast(fmaf(s[4 * j], z.to_log2, -base0)), s[4 * j + 1] = exp2_fast(fmaf(s[4 * j + 1], z.to_log2, -base0));
        s[4 * j + 2] = exp2_fast(fmaf(s[4 * j + 2], z.to_log2, -base1)), s[4 * j + 3] = exp2_fast(fmaf(s[4 * j + 3], z.to_log2, -base1));
        sum0 += s[4 * j] + s[4 * j + 1];
        sum1 += s[4 * j + 2] + s[4 * j + 3];
#pragma unroll
        for (int i = 4 * j; i < 4 * j + 4; ++i) sd[i] = s[i] * (Late ? sd[i] : sd[i] * z.scale);
        p[2 * j] = pack_pair<T>(s[4 * j], s[4 * j + 1]);
        p[2 * j + 1] = pack_pair<T>(s[4 * j + 2], s[4 * j + 3]);
        g[2 * j] = pack_pair<T>(sd[4 * j], sd[4 * j + 1]);
        g[2 * j + 1] = pack_pair<T>(sd[4 * j + 2], sd[4 * j + 3]);
        // The sum of what is multiplied, not of what was rounded: where one key dominates, H v and rowsum(H) o cancel exactly.
        const float2 low = unpack_pair<T>(g[2 * j]), high = unpack_pair<T>(g[2 * j + 1]);
        cross0 += low.x + low.y;
        cross1 += high.x + high.y;
      }
      pin(p);
      pin(g);
    };
    // Turns: barrier 1 lets warpgroup 1 multiply, barrier 2 warpgroup 2.
    if (group == 2) named_arrive(1, 256);
    fresh();
    barrier_wait(queries, 0);
    barrier_wait(full, 0);
    wgmma_fence();
    scores(0, 0);
    wgmma_wait<0>();
    pin(s);
    pin(sd);
    release(0);
    int item = blockIdx.x, n = 0, tile = 0;
    for (;;) {
      softmax(tile);
      if (shrinks) {
#pragma unroll
        for (int j = 0; j < W / 8; ++j) {
          o[4 * j] *= shrink0, o[4 * j + 1] *= shrink0, o[4 * j + 2] *= shrink1, o[4 * j + 3] *= shrink1;
          od[4 * j] *= shrink0, od[4 * j + 1] *= shrink0, od[4 * j + 2] *= shrink1, od[4 * j + 3] *= shrink1;
        }
      }
      // The outputs of the item before lie in what were its queries, until the copy engine has read them.
      if (tile == 0 && n > 0 && threadIdx.x % 128 == 0) {
        store_wait_read();
        barrier_arrive(queries_free + (n + 1) % 2);
      }
      const bool last = tile + 1 == z.tiles, more = !last || item + (int)gridDim.x < z.items;
      next();
      const int value_slot = slot;
      barrier_wait(full + slot, phase);
      if (more) {
        next();
        if (last) barrier_wait(queries + (n + 1) % 2, (n + 1) / 2 & 1);
        barrier_wait(full + slot, phase);
      }
      named_sync(group, 256);
      pin(o);
      pin(od);
      pin(p);
      pin(g);
      wgmma_fence();
      values(value_slot);
      if (more) scores(slot, last ? (n + 1) % 2 : n % 2);
      named_arrive(3 - group, 256);
      wgmma_wait<0>();
      pin(s);
      pin(sd);
      pin(o);
      pin(od);
      pin(p);
      pin(g);
      release(value_slot);
      if (more) release(slot);
      if (!last) {
        ++tile;
        continue;
      }
      sum0 = quad_sum(sum0), sum1 = quad_sum(sum1), cross0 = quad_sum(cross0), cross1 = quad_sum(cross1);
      const int q0 = item % z.query_tiles * 2 * kRows + (group - 1) * kRows, head = item / z.query_tiles % z.H, batch = item / z.query_tiles / z.H;
      const int row = q0 + warp * 16 + lane / 4;
      if (lane % 4 == 0) {
        float* out = lse + ((int64_t)batch * z.H + head) * z.Lq;
        if (row < z.Lq) out[row] = top0 * z.scale + logf(sum0);
        if (row + 8 < z.Lq) out[row + 8] = top1 * z.scale + logf(sum1);
      }
      const float inverse0 = 1 / sum0, inverse1 = 1 / sum1, mean0 = cross0 * inverse0, mean1 = cross1 * inverse1;
#pragma unroll
      for (int j = 0; j < W / 8; ++j) {
        od[4 * j] -= mean0 * o[4 * j], od[4 * j + 1] -= mean0 * o[4 * j + 1];
        od[4 * j + 2] -= mean1 * o[4 * j + 2], od[4 * j + 3] -= mean1 * o[4 * j + 3];
      }
      // The queries' memory becomes the staging of the outputs; each warpgroup reads and writes its own rows only.
      char* stage = shared + n % 2 * 2 * L::kQueryBytes + (group - 1) * kRows * 128;
      const float dot = Late ? z.scale : 1;
      stage_tile<T, W>(o, inverse0, inverse1, stage, 2 * kRows * 128);
      stage_tile<T, W>(od, inverse0 * dot, inverse1 * dot, stage + L::kQueryBytes, 2 * kRows * 128);
      fence_async_proxy();
      named_sync(group + 2, 128);
      if (threadIdx.x % 128 == 0) {
        for (int h = 0; h < L::kHalves && q0 < z.Lq; ++h) {
          store_box(&maps.o, stage + h * 2 * kRows * 128, h * 64, q0, head, batch);
          store_box(&maps.o_dot, stage + L::kQueryBytes + h * 2 * kRows * 128, h * 64, q0, head, batch);
        }
        store_commit();
      }
      if (!more) break;
      fresh();
      item += gridDim.x, ++n, tile = 0;
    }
    if (group == 1) named_sync(1, 256);  // the turn that nobody takes
    if (threadIdx.x % 128 == 0) store_wait_read();
  }
#endif
}

template <class T, int W, int N>
bool launch(const AttentionShape& s, const void* q, const void* k, const void* v, const void* q_dot, void* o, void* o_dot, float* lse) {
  using L = Layout<W, N>;
  Maps m;
  const auto query = [&](CUtensorMap* map, const void* data, const int64_t* strides, int rows) {
    return tensor_map(map, data, s.dtype, s.B, s.Lq, s.H, W, strides, rows);
  };
  const auto key = [&](CUtensorMap* map, const void* data, const int64_t* strides) { return tensor_map(map, data, s.dtype, s.B, s.Lk, s.H, W, strides, N); };
  if (!query(&m.q, q, s.q, 2 * kRows) || !query(&m.q_dot, q_dot, s.q, 2 * kRows) || !query(&m.o, o, s.o, kRows) || !query(&m.o_dot, o_dot, s.o, kRows) ||
      !key(&m.k, k, s.k) || !key(&m.v, v, s.v)) {
    return false;
  }
  const int64_t items = ceil_div(s.Lq, 2 * kRows) * s.H * s.B;
  if (items > INT32_MAX / 2) return false;
  const Sizes z{(int)s.Lq, (int)s.Lk, (int)s.H, (int)ceil_div(s.Lk, N), (int)ceil_div(s.Lq, 2 * kRows), (int)items, (float)s.scale,
                (float)(s.scale * 1.4426950408889634)};
  auto* kernel = queries_kernel<T, W, N>;
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, L::kBytes), "shared memory");
  const int64_t blocks = std::min<int64_t>(items, gpu().sms);
  kernel<<<(unsigned)blocks, 384, L::kBytes, stream()>>>(m, lse, z);
  return true;
}

template <class T>
bool dispatch(const AttentionShape& s, const void* q, const void* k, const void* v, const void* q_dot, void* o, void* o_dot, float* lse) {
  return s.K == 128 ? launch<T, 128, 48>(s, q, k, v, q_dot, o, o_dot, lse) : launch<T, 64, 64>(s, q, k, v, q_dot, o, o_dot, lse);
}

}  // namespace

bool hopper_jvp_queries(const AttentionShape& s, const void* q, const void* k, const void* v, const void* q_dot, void* o, void* o_dot, float* lse) {
  if (!hopper_takes(s)) return false;
  return s.dtype == RCM_BF16 ? dispatch<bf16>(s, q, k, v, q_dot, o, o_dot, lse) : dispatch<f16>(s, q, k, v, q_dot, o, o_dot, lse);
}

}  // namespace rcm
