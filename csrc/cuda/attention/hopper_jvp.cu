// Attention and its tangent in one pass on sm_90a. A producer warp feeds key tiles through a ring in shared memory; two warpgroups of 64
// query rows each run, per tile,
//   S' = q' k^T + q k'^T, and meanwhile P = exp(S - m) | H = P.S' | o += P v, o' += P v' + H v | S of the next tile
// so that exponentials hide behind multiplies, and one warpgroup's products behind the other's multiplies. H is formed from P before
// rounding, and H v and P v' share one accumulator.
#include <algorithm>
#include <cstdlib>

#include "hopper.cuh"

namespace rcm {
namespace {

using namespace ptx;

struct Maps {
  CUtensorMap q, k, v, q_dot, k_dot, v_dot, o, o_dot;
};

constexpr float kSlack = 4;  // f16 keeps room for P.S'

// W head width, N keys a tile; All: k and v carry tangents too, else only q.
template <class T, int W, int N, bool All>
struct Layout {
  static constexpr int kHalves = W / 64;
  static constexpr int kQueryBytes = 2 * kRows * W * 2;          // q of both warpgroups
  static constexpr int kTileBytes = N * W * 2;                   // one of k, k', v, v'
  static constexpr int kSlotBytes = kTileBytes * (All ? 2 : 1);  // k and k', or v and v'
  // Without tangents of k and v sequences are short: a block takes many query tiles, and loads the next one's queries beside its work.
  static constexpr int kQueryBuffers = All ? 1 : 2;
  static constexpr int kFit = (232448 - 1024 - 256 - kQueryBuffers * 2 * kQueryBytes) / kSlotBytes;
  static constexpr int kSlots = kFit < 8 ? kFit : 8;
  static constexpr int kBytes = 1024 + 256 + kQueryBuffers * 2 * kQueryBytes + kSlots * kSlotBytes;
  static_assert(kSlots >= 2 && N % 16 == 0 && kTileBytes % 1024 == 0, "tile");
};

template <class T, int W, int N, bool All>
__global__ void __launch_bounds__(384, 1) jvp_kernel(const __grid_constant__ Maps maps, float* lse, int Lq, int Lk, int H, int items, float scale) {
#if RCM_HOPPER_CODE
  using L = Layout<T, W, N, All>;
  constexpr int QB = L::kQueryBuffers;
  extern __shared__ char raw[];
  char* shared = reinterpret_cast<char*>((reinterpret_cast<uintptr_t>(raw) + 1023) & ~(uintptr_t)1023);
  char* ring = shared + QB * 2 * L::kQueryBytes;
  uint64_t* full = reinterpret_cast<uint64_t*>(ring + L::kSlots * L::kSlotBytes);
  uint64_t *empty = full + L::kSlots, *queries = empty + L::kSlots, *queries_free = queries + QB;
  const int tiles = (Lk + N - 1) / N, query_tiles = (Lq + 2 * kRows - 1) / (2 * kRows);
  if (threadIdx.x == 0) {
    for (int i = 0; i < L::kSlots; ++i) {
      barrier_init(full + i, 1);
      barrier_init(empty + i, 8);
    }
    for (int i = 0; i < QB; ++i) {
      barrier_init(queries + i, 1);
      barrier_init(queries_free + i, 2);
    }
    barrier_init_fence();
  }
  __syncthreads();
  const int group = threadIdx.x / 128;

  if (group == 0) {
    registers_lower<24>();
    if (threadIdx.x == 0) {
      const auto load_queries = [&](int item, int n) {
        const int buffer = n % QB, q0 = item % query_tiles * 2 * kRows, head = item / query_tiles % H, batch = item / query_tiles / H;
        char* to = shared + buffer * 2 * L::kQueryBytes;
        barrier_wait(queries_free + buffer, (n / QB & 1) ^ 1);
        barrier_expect(queries + buffer, 2 * L::kQueryBytes);
        for (int h = 0; h < L::kHalves; ++h) {
          copy_box(to + h * 2 * kRows * 128, &maps.q, queries + buffer, h * 64, q0, head, batch);
          copy_box(to + L::kQueryBytes + h * 2 * kRows * 128, &maps.q_dot, queries + buffer, h * 64, q0, head, batch);
        }
      };
      int slot = 0, phase = 0;
      load_queries(blockIdx.x, 0);
      for (int item = blockIdx.x, n = 0; item < items; item += gridDim.x, ++n) {
        const int head = item / query_tiles % H, batch = item / query_tiles / H;
        for (int step = 0; step < 2 * tiles; ++step) {
          barrier_wait(empty + slot, phase ^ 1);
          barrier_expect(full + slot, L::kSlotBytes);
          char* to = ring + slot * L::kSlotBytes;
          const bool value = step & 1;
          for (int h = 0; h < L::kHalves; ++h) {
            copy_box(to + h * N * 128, value ? &maps.v : &maps.k, full + slot, h * 64, (step >> 1) * N, head, batch);
            if constexpr (All) {
              copy_box(to + L::kTileBytes + h * N * 128, value ? &maps.v_dot : &maps.k_dot, full + slot, h * 64, (step >> 1) * N, head, batch);
            }
          }
          if (++slot == L::kSlots) slot = 0, phase ^= 1;
        }
        if (item + (int)gridDim.x < items) load_queries(item + gridDim.x, n + 1);
      }
    }
  } else {
    registers_raise<240>();
    const int warp = threadIdx.x / 32 % 4, lane = threadIdx.x % 32;
    const uint32_t ring_base = shared_address(ring);
    const float to_log2 = scale * 1.4426950408889634f;
    int slot = 0, phase = 0;
    for (int item = blockIdx.x, n = 0; item < items; item += gridDim.x, ++n) {
      const int q0 = item % query_tiles * 2 * kRows + (group - 1) * kRows, head = item / query_tiles % H, batch = item / query_tiles / H;
      const int buffer = n % QB;
      char *q_tile = shared + buffer * 2 * L::kQueryBytes + (group - 1) * kRows * 128, *qd_tile = q_tile + L::kQueryBytes;
      const uint32_t q_base = shared_address(q_tile), qd_base = q_base + L::kQueryBytes;
      float o[W / 2] = {}, od[W / 2] = {};
      float top0 = -INFINITY, top1 = -INFINITY, sum0 = 0, sum1 = 0, cross0 = 0, cross1 = 0;
      float s[N / 2], sd[N / 2];
      uint32_t p[N / 4], g[N / 4];
      barrier_wait(queries + buffer, n / QB & 1);
      const auto scores = [&](int at_slot) {
        const uint32_t base = ring_base + at_slot * L::kSlotBytes;
#pragma unroll
        for (int c = 0; c < W / 16; ++c) {
          Wgmma<N, T>::shared(s, wgmma_operand(q_base + (c / 4) * 2 * kRows * 128 + c % 4 * 32, 0), wgmma_operand(base + (c / 4) * N * 128 + c % 4 * 32, 0), c);
        }
        wgmma_commit();
      };
      barrier_wait(full + slot, phase);
      wgmma_fence();
      scores(slot);
      wgmma_wait<0>();
      pin(s);
      for (int tile = 0; tile < tiles; ++tile) {
        const uint32_t k_base = ring_base + slot * L::kSlotBytes;
        wgmma_fence();
#pragma unroll
        for (int c = 0; c < W / 16; ++c) {
          const uint32_t at = (c / 4) * 2 * kRows * 128 + c % 4 * 32, key = (c / 4) * N * 128 + c % 4 * 32;
          Wgmma<N, T>::shared(sd, wgmma_operand(qd_base + at, 0), wgmma_operand(k_base + key, 0), c);
          if constexpr (All) Wgmma<N, T>::shared(sd, wgmma_operand(q_base + at, 0), wgmma_operand(k_base + L::kTileBytes + key, 0), 1);
        }
        wgmma_commit();

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
        // Sums are relative to `top`, which may lag the true maximum a little: rescaling waits until a weight would pass 2^kSlack.
        if (__any_sync(0xffffffffu, (high0 - top0) * to_log2 > kSlack || (high1 - top1) * to_log2 > kSlack)) {
          const float shrink0 = exp2_fast((top0 - high0) * to_log2), shrink1 = exp2_fast((top1 - high1) * to_log2);
          top0 = high0;
          top1 = high1;
          sum0 *= shrink0, cross0 *= shrink0;
          sum1 *= shrink1, cross1 *= shrink1;
#pragma unroll
          for (int j = 0; j < W / 8; ++j) {
            o[4 * j] *= shrink0, o[4 * j + 1] *= shrink0, o[4 * j + 2] *= shrink1, o[4 * j + 3] *= shrink1;
            od[4 * j] *= shrink0, od[4 * j + 1] *= shrink0, od[4 * j + 2] *= shrink1, od[4 * j + 3] *= shrink1;
          }
        }
        const float base0 = top0 * to_log2, base1 = top1 * to_log2;
#pragma unroll
        for (int j = 0; j < N / 8; ++j) {
          s[4 * j] = exp2_fast(fmaf(s[4 * j], to_log2, -base0)), s[4 * j + 1] = exp2_fast(fmaf(s[4 * j + 1], to_log2, -base0));
          s[4 * j + 2] = exp2_fast(fmaf(s[4 * j + 2], to_log2, -base1)), s[4 * j + 3] = exp2_fast(fmaf(s[4 * j + 3], to_log2, -base1));
          sum0 += s[4 * j] + s[4 * j + 1];
          sum1 += s[4 * j + 2] + s[4 * j + 3];
        }

        wgmma_wait<0>();
        pin(sd);
        if (lane == 0) barrier_arrive(empty + slot);
#pragma unroll
        for (int j = 0; j < N / 8; ++j) {
          p[2 * j] = pack_pair<T>(s[4 * j], s[4 * j + 1]);
          p[2 * j + 1] = pack_pair<T>(s[4 * j + 2], s[4 * j + 3]);
          const float a = s[4 * j] * (sd[4 * j] * scale), b = s[4 * j + 1] * (sd[4 * j + 1] * scale);
          const float c = s[4 * j + 2] * (sd[4 * j + 2] * scale), d = s[4 * j + 3] * (sd[4 * j + 3] * scale);
          g[2 * j] = pack_pair<T>(a, b);
          g[2 * j + 1] = pack_pair<T>(c, d);
          // The sum of what is multiplied, not of what was rounded: where one key dominates, H v and rowsum(H) o cancel exactly.
          const float2 low = unpack_pair<T>(g[2 * j]), high = unpack_pair<T>(g[2 * j + 1]);
          cross0 += low.x + low.y;
          cross1 += high.x + high.y;
        }
        if (++slot == L::kSlots) slot = 0, phase ^= 1;
        barrier_wait(full + slot, phase);
        const uint32_t v_base = ring_base + slot * L::kSlotBytes;
        const int value_slot = slot;
        if (++slot == L::kSlots) slot = 0, phase ^= 1;
        pin(p);
        pin(g);
        wgmma_fence();
#pragma unroll
        for (int c = 0; c < N / 16; ++c) {
          const uint64_t value = wgmma_operand(v_base + c * 2048, N * 128);
          Wgmma<W, T>::registers(o, p + 4 * c, value, 1);
          Wgmma<W, T>::registers(od, g + 4 * c, value, 1);
          if constexpr (All) Wgmma<W, T>::registers(od, p + 4 * c, wgmma_operand(v_base + L::kTileBytes + c * 2048, N * 128), 1);
        }
        wgmma_commit();
        if (tile + 1 < tiles) {
          barrier_wait(full + slot, phase);
          wgmma_fence();
          scores(slot);
        }
        // Nothing stays in flight across the loop's edge: ptxas would serialise every multiply of the loop.
        wgmma_wait<0>();
        pin(s);
        pin(o);
        pin(od);
        pin(p);
        pin(g);
        if (lane == 0) barrier_arrive(empty + value_slot);
        // By now the copy engine has long read the previous outputs from what were their queries.
        if (QB > 1 && tile == 0 && n > 0 && threadIdx.x % 128 == 0) {
          store_wait_read();
          barrier_arrive(queries_free + (n + 1) % QB);
        }
      }
      sum0 = quad_sum(sum0), sum1 = quad_sum(sum1), cross0 = quad_sum(cross0), cross1 = quad_sum(cross1);
      const float inverse0 = 1 / sum0, inverse1 = 1 / sum1, mean0 = cross0 * inverse0, mean1 = cross1 * inverse1;
      const int row = q0 + warp * 16 + lane / 4;
      if (lane % 4 == 0) {
        float* out = lse + ((int64_t)batch * H + head) * Lq;
        if (row < Lq) out[row] = top0 * scale + logf(sum0);
        if (row + 8 < Lq) out[row + 8] = top1 * scale + logf(sum1);
      }
#pragma unroll
      for (int j = 0; j < W / 8; ++j) {
        od[4 * j] -= mean0 * o[4 * j], od[4 * j + 1] -= mean0 * o[4 * j + 1];
        od[4 * j + 2] -= mean1 * o[4 * j + 2], od[4 * j + 3] -= mean1 * o[4 * j + 3];
      }
      // The queries' memory becomes the staging of the outputs; each warpgroup reads and writes its own rows only.
      stage_tile<T, W>(o, inverse0, inverse1, q_tile, 2 * kRows * 128);
      stage_tile<T, W>(od, inverse0, inverse1, qd_tile, 2 * kRows * 128);
      fence_async_proxy();
      named_sync(group, 128);
      if (threadIdx.x % 128 == 0) {
        for (int h = 0; h < L::kHalves && q0 < Lq; ++h) {
          store_box(&maps.o, q_tile + h * 2 * kRows * 128, h * 64, q0, head, batch);
          store_box(&maps.o_dot, qd_tile + h * 2 * kRows * 128, h * 64, q0, head, batch);
        }
        store_commit();
      }
    }
    if (threadIdx.x % 128 == 0) store_wait_read();
  }
#endif
}

template <class T, int W, int N, bool All>
bool launch(const AttentionShape& s, const void* q, const void* k, const void* v, const void* q_dot, const void* k_dot, const void* v_dot, void* o,
            void* o_dot, float* lse) {
  using L = Layout<T, W, N, All>;
  Maps m;
  const auto query = [&](CUtensorMap* map, const void* data, const int64_t* strides, int rows) {
    return tensor_map(map, data, s.dtype, s.B, s.Lq, s.H, W, strides, rows);
  };
  const auto key = [&](CUtensorMap* map, const void* data, const int64_t* strides) { return tensor_map(map, data, s.dtype, s.B, s.Lk, s.H, W, strides, N); };
  bool fits = query(&m.q, q, s.q, 2 * kRows) && query(&m.q_dot, q_dot, s.q, 2 * kRows) && query(&m.o, o, s.o, kRows) &&
              query(&m.o_dot, o_dot, s.o, kRows) && key(&m.k, k, s.k) && key(&m.v, v, s.v);
  if (All) fits = fits && key(&m.k_dot, k_dot, s.k) && key(&m.v_dot, v_dot, s.v);
  if (!fits) return false;
  auto* kernel = jvp_kernel<T, W, N, All>;
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, L::kBytes), "shared memory");
  const int64_t items = ceil_div(s.Lq, 2 * kRows) * s.H * s.B;
  if (items > INT32_MAX / 2) return false;
  const int64_t blocks = All ? items : std::min<int64_t>(items, gpu().sms);
  kernel<<<(unsigned)blocks, 384, L::kBytes, stream()>>>(m, lse, (int)s.Lq, (int)s.Lk, (int)s.H, (int)items, (float)s.scale);
  return true;
}

template <class T>
bool dispatch(const AttentionShape& s, const void* q, const void* k, const void* v, const void* q_dot, const void* k_dot, const void* v_dot, void* o,
              void* o_dot, float* lse) {
  const bool all = k_dot && v_dot;
  if (s.K == 128) {
    return all ? launch<T, 128, 80, true>(s, q, k, v, q_dot, k_dot, v_dot, o, o_dot, lse)
               : launch<T, 128, 64, false>(s, q, k, v, q_dot, k_dot, v_dot, o, o_dot, lse);
  }
  return all ? launch<T, 64, 128, true>(s, q, k, v, q_dot, k_dot, v_dot, o, o_dot, lse)
             : launch<T, 64, 128, false>(s, q, k, v, q_dot, k_dot, v_dot, o, o_dot, lse);
}

}  // namespace

bool tensor_map(CUtensorMap* map, const void* data, int32_t dtype, int64_t B, int64_t L, int64_t H, int64_t W, const int64_t* strides, int rows) {
  using Encode = CUresult (*)(CUtensorMap*, CUtensorMapDataType, cuuint32_t, void*, const cuuint64_t*, const cuuint64_t*, const cuuint32_t*,
                              const cuuint32_t*, CUtensorMapInterleave, CUtensorMapSwizzle, CUtensorMapL2promotion, CUtensorMapFloatOOBfill);
  static const Encode encode = [] {
    void* f = nullptr;
    cudaDriverEntryPointQueryResult found;
    if (cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &f, 12000, cudaEnableDefault, &found) != cudaSuccess) f = nullptr;
    cudaGetLastError();
    return reinterpret_cast<Encode>(f);
  }();
  if (!encode || !aligned(data, 16)) return false;
  const cuuint64_t sizes[4] = {(cuuint64_t)W, (cuuint64_t)L, (cuuint64_t)H, (cuuint64_t)B};
  // A dimension of one element is never stepped over; any legal stride will do.
  const int64_t token = L > 1 ? strides[1] : W, head = H > 1 ? strides[2] : W, batch = B > 1 ? strides[0] : W;
  const cuuint64_t bytes[3] = {(cuuint64_t)token * 2, (cuuint64_t)head * 2, (cuuint64_t)batch * 2};
  for (cuuint64_t b : bytes) {
    if (b == 0 || b % 16 != 0 || b >= ((cuuint64_t)1 << 40)) return false;
  }
  const cuuint32_t box[4] = {64, (cuuint32_t)rows, 1, 1}, ones[4] = {1, 1, 1, 1};
  return encode(map, dtype == RCM_BF16 ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16 : CU_TENSOR_MAP_DATA_TYPE_FLOAT16, 4, const_cast<void*>(data), sizes, bytes, box,
                ones, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) == CUDA_SUCCESS;
}

bool hopper_jvp(const AttentionShape& s, const void* q, const void* k, const void* v, const void* q_dot, const void* k_dot, const void* v_dot, void* o,
                void* o_dot, float* lse) {
  const bool tangents = q_dot && (k_dot != nullptr) == (v_dot != nullptr);
  if (!tangents || !hopper_takes(s)) return false;
  if (!k_dot && !std::getenv("RCM_OLD")) return hopper_jvp_queries(s, q, k, v, q_dot, o, o_dot, lse);
  return s.dtype == RCM_BF16 ? dispatch<bf16>(s, q, k, v, q_dot, k_dot, v_dot, o, o_dot, lse)
                             : dispatch<f16>(s, q, k, v, q_dot, k_dot, v_dot, o, o_dot, lse);
}

}  // namespace rcm
