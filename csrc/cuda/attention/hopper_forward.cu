// Attention forward on sm_90a. A producer warp feeds key tiles through a ring in shared memory; two warpgroups of 64 query rows each take
// turns: while one forms exponentials, the other multiplies. Within a warpgroup the next tile's scores multiply beside P v.
#include "hopper.cuh"

namespace rcm {
namespace {

using namespace ptx;

struct Maps {
  CUtensorMap q, k, v, o;
};

template <int W, int N>
struct Layout {
  static constexpr int kHalves = W / 64;
  static constexpr int kQueryBytes = 2 * kRows * W * 2;
  static constexpr int kSlotBytes = N * W * 2;
  static constexpr int kFit = (232448 - 1024 - 256 - kQueryBytes) / kSlotBytes;
  static constexpr int kSlots = kFit < 6 ? kFit : 6;
  static constexpr int kBytes = 1024 + 256 + kQueryBytes + kSlots * kSlotBytes;
  static_assert(kSlots >= 4 && N % 16 == 0 && kSlotBytes % 1024 == 0, "tile");
};

template <class T, int W, int N>
__global__ void __launch_bounds__(384, 1) forward_kernel(const __grid_constant__ Maps maps, float* lse, int Lq, int Lk, int H, float scale) {
#if RCM_HOPPER_CODE
  using L = Layout<W, N>;
  extern __shared__ char raw[];
  char* shared = reinterpret_cast<char*>((reinterpret_cast<uintptr_t>(raw) + 1023) & ~(uintptr_t)1023);
  char *q_tile = shared, *ring = q_tile + L::kQueryBytes;
  uint64_t* full = reinterpret_cast<uint64_t*>(ring + L::kSlots * L::kSlotBytes);
  uint64_t *empty = full + L::kSlots, *queries = empty + L::kSlots;
  const int q0 = blockIdx.x * 2 * kRows, head = blockIdx.y, batch = blockIdx.z;
  const int tiles = (Lk + N - 1) / N;
  if (threadIdx.x == 0) {
    for (int i = 0; i < L::kSlots; ++i) {
      barrier_init(full + i, 1);
      barrier_init(empty + i, 8);
    }
    barrier_init(queries, 1);
    barrier_init_fence();
  }
  __syncthreads();
  const int group = threadIdx.x / 128;

  if (group == 0) {
    registers_lower<24>();
    if (threadIdx.x == 0) {
      barrier_expect(queries, L::kQueryBytes);
      for (int h = 0; h < L::kHalves; ++h) copy_box(q_tile + h * 2 * kRows * 128, &maps.q, queries, h * 64, q0, head, batch);
      int slot = 0, phase = 0;
      for (int step = 0; step < 2 * tiles; ++step) {
        barrier_wait(empty + slot, phase ^ 1);
        barrier_expect(full + slot, L::kSlotBytes);
        for (int h = 0; h < L::kHalves; ++h) {
          copy_box(ring + slot * L::kSlotBytes + h * N * 128, step & 1 ? &maps.v : &maps.k, full + slot, h * 64, (step >> 1) * N, head, batch);
        }
        if (++slot == L::kSlots) slot = 0, phase ^= 1;
      }
    }
  } else {
    registers_raise<240>();
    const int warp = threadIdx.x / 32 % 4, lane = threadIdx.x % 32;
    const uint32_t q_base = shared_address(q_tile) + (group - 1) * kRows * 128, ring_base = shared_address(ring);
    const float to_log2 = scale * 1.4426950408889634f;
    float o[W / 2] = {}, s[N / 2];
    float top0 = -INFINITY, top1 = -INFINITY, sum0 = 0, sum1 = 0, shrink0 = 1, shrink1 = 1;
    uint32_t p[N / 4];
    const auto next = [&](int& slot, int& phase) {
      if (++slot == L::kSlots) slot = 0, phase ^= 1;
    };
    const auto scores = [&](int slot) {
      const uint32_t k_base = ring_base + slot * L::kSlotBytes;
#pragma unroll
      for (int c = 0; c < W / 16; ++c) {
        Wgmma<N, T>::shared(s, wgmma_operand(q_base + (c / 4) * 2 * kRows * 128 + c % 4 * 32, 0), wgmma_operand(k_base + (c / 4) * N * 128 + c % 4 * 32, 0), c);
      }
      wgmma_commit();
    };
    // Exponentials of s in place, and the factors by which the old sums shrink.
    const auto softmax = [&](int tile) {
      if (tile == tiles - 1 && Lk % N != 0) {
        const int left = Lk - tile * N;
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
      shrink0 = exp2_fast((top0 - high0) * to_log2), shrink1 = exp2_fast((top1 - high1) * to_log2);
      top0 = high0, top1 = high1;
      sum0 *= shrink0, sum1 *= shrink1;
      const float base0 = top0 * to_log2, base1 = top1 * to_log2;
#pragma unroll
      for (int j = 0; j < N / 8; ++j) {
        s[4 * j] = exp2_fast(fmaf(s[4 * j], to_log2, -base0)), s[4 * j + 1] = exp2_fast(fmaf(s[4 * j + 1], to_log2, -base0));
        s[4 * j + 2] = exp2_fast(fmaf(s[4 * j + 2], to_log2, -base1)), s[4 * j + 3] = exp2_fast(fmaf(s[4 * j + 3], to_log2, -base1));
        sum0 += s[4 * j] + s[4 * j + 1];
        sum1 += s[4 * j + 2] + s[4 * j + 3];
      }
    };
    const auto pack = [&] {
#pragma unroll
      for (int j = 0; j < N / 8; ++j) {
        p[2 * j] = pack_pair<T>(s[4 * j], s[4 * j + 1]);
        p[2 * j + 1] = pack_pair<T>(s[4 * j + 2], s[4 * j + 3]);
      }
    };
    const auto values = [&](int slot) {
      const uint32_t v_base = ring_base + slot * L::kSlotBytes;
#pragma unroll
      for (int c = 0; c < N / 16; ++c) Wgmma<W, T>::registers(o, p + 4 * c, wgmma_operand(v_base + c * 2048, N * 128), 1);
      wgmma_commit();
    };
    // Turns: barrier 1 lets warpgroup 1 multiply, barrier 2 warpgroup 2.
    if (group == 2) named_arrive(1, 256);
    int slot = 0, phase = 0;
    barrier_wait(queries, 0);
    barrier_wait(full + slot, phase);
    wgmma_fence();
    scores(slot);
    wgmma_wait<0>();
    pin(s);
    if (lane == 0) barrier_arrive(empty + slot);
    softmax(0);
    pack();
    for (int tile = 0; tile + 1 < tiles; ++tile) {
      next(slot, phase);
      const int value_slot = slot, value_phase = phase;
      next(slot, phase);
      barrier_wait(full + slot, phase);
      named_sync(group, 256);
      pin(p);
      wgmma_fence();
      scores(slot);
      barrier_wait(full + value_slot, value_phase);
      values(value_slot);
      named_arrive(3 - group, 256);
      wgmma_wait<1>();
      pin(s);
      if (lane == 0) barrier_arrive(empty + slot);
      softmax(tile + 1);
      wgmma_wait<0>();
      pin(o);
      pin(p);
      if (lane == 0) barrier_arrive(empty + value_slot);
#pragma unroll
      for (int j = 0; j < W / 8; ++j) o[4 * j] *= shrink0, o[4 * j + 1] *= shrink0, o[4 * j + 2] *= shrink1, o[4 * j + 3] *= shrink1;
      pack();
    }
    if (group == 1) named_sync(1, 256);  // the turn that nobody takes
    next(slot, phase);
    barrier_wait(full + slot, phase);
    pin(p);
    wgmma_fence();
    values(slot);
    wgmma_wait<0>();
    pin(o);
    sum0 = quad_sum(sum0), sum1 = quad_sum(sum1);
    const int row = q0 + (group - 1) * kRows + warp * 16 + lane / 4;
    if (lane % 4 == 0) {
      float* out = lse + ((int64_t)batch * H + head) * Lq;
      if (row < Lq) out[row] = top0 * scale + logf(sum0);
      if (row + 8 < Lq) out[row + 8] = top1 * scale + logf(sum1);
    }
    // The queries' memory becomes the staging of the outputs; each warpgroup reads and writes its own rows only.
    stage_tile<T, W>(o, 1 / sum0, 1 / sum1, q_tile + (group - 1) * kRows * 128, 2 * kRows * 128);
    fence_async_proxy();
    named_sync(group + 2, 128);
    if (threadIdx.x % 128 == 0 && q0 + (group - 1) * kRows < Lq) {
      for (int h = 0; h < L::kHalves; ++h) {
        store_box(&maps.o, q_tile + h * 2 * kRows * 128 + (group - 1) * kRows * 128, h * 64, q0 + (group - 1) * kRows, head, batch);
      }
      store_commit();
      store_wait_read();
    }
  }
#endif
}

template <class T, int W, int N>
bool launch(const AttentionShape& s, const void* q, const void* k, const void* v, void* o, float* lse) {
  using L = Layout<W, N>;
  Maps m;
  if (!tensor_map(&m.q, q, s.dtype, s.B, s.Lq, s.H, W, s.q, 2 * kRows) || !tensor_map(&m.o, o, s.dtype, s.B, s.Lq, s.H, W, s.o, kRows) ||
      !tensor_map(&m.k, k, s.dtype, s.B, s.Lk, s.H, W, s.k, N) || !tensor_map(&m.v, v, s.dtype, s.B, s.Lk, s.H, W, s.v, N)) {
    return false;
  }
  auto* kernel = forward_kernel<T, W, N>;
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, L::kBytes), "shared memory");
  const dim3 grid((unsigned)ceil_div(s.Lq, 2 * kRows), (unsigned)s.H, (unsigned)s.B);
  kernel<<<grid, 384, L::kBytes, stream()>>>(m, lse, (int)s.Lq, (int)s.Lk, (int)s.H, (float)s.scale);
  return true;
}

template <class T>
bool dispatch(const AttentionShape& s, const void* q, const void* k, const void* v, void* o, float* lse) {
  return s.K == 128 ? launch<T, 128, 176>(s, q, k, v, o, lse) : launch<T, 64, 128>(s, q, k, v, o, lse);
}

}  // namespace

bool hopper_forward(const AttentionShape& s, const void* q, const void* k, const void* v, void* o, float* lse) {
  if (!hopper_takes(s)) return false;
  return s.dtype == RCM_BF16 ? dispatch<bf16>(s, q, k, v, o, lse) : dispatch<f16>(s, q, k, v, o, lse);
}

}  // namespace rcm
