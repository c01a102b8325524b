// Attention of the text encoder: additive relative bias per head, key lengths per sample; no derivative.
//
// A block takes a tile of 32 queries of one head through all keys by online softmax; 8 lanes share a query. Statistics
// and products are f32 (f64 for f64), on the ordinary units.
#include "cuda/runtime/common.cuh"
#include "shared/ops/text_encoder.h"

namespace rcm::text_encoder {
namespace {

constexpr int kThreads = 256, kLanes = 8, kRows = kThreads / kLanes;

struct Sizes {
  int64_t H, L, K;
  double scale;
};

// Keys of a tile, few enough that a block's shared memory stays below 100 KiB in f64 too.
template <class C>
constexpr int kKeys = std::is_same<C, double>::value ? 16 : 32;

template <class C>
size_t shared_bytes(int64_t K) {
  return (size_t)((kRows + 2 * kKeys<C>)*(K + 1) + kRows * (kKeys<C> + 1)) * sizeof(C);
}

// Copies `kept` rows of a head to shared memory as C, times `scale`, and zeros up to `rows`.
template <class T, class C>
__device__ inline void stage(const T* x, C* to, int rows, int64_t kept, int64_t step, int K, C scale) {
  for (int i = threadIdx.x; i < rows * K; i += kThreads) {
    const int r = i / K, c = i % K;
    to[r * (K + 1) + c] = r < kept ? (C)load_as(x[r * step + c]) * scale : (C)0;
  }
}

__device__ inline float exp_of(float x) { return expf(x); }
__device__ inline double exp_of(double x) { return exp(x); }

template <class T>
__global__ void __launch_bounds__(kThreads)
    bias_attention_kernel(const T* q, const T* k, const T* v, const compute_t<T>* bias, const int32_t* lengths, T* o,
                          Sizes s) {
  await_queued();
  using C = compute_t<T>;
  constexpr int kTile = kKeys<C>, kPer = kTile / kLanes, kColumns = kMaxWidth / kLanes;
  extern __shared__ __align__(16) unsigned char memory[];
  const int K = (int)s.K, ld = K + 1, row = threadIdx.x / kLanes, lane = threadIdx.x % kLanes;
  C *qs = reinterpret_cast<C*>(memory), *ks = qs + kRows * ld, *vs = ks + kTile * ld,
    *p = vs + kTile * ld + row * (kTile + 1);
  const int64_t b = blockIdx.y / s.H, h = blockIdx.y % s.H, q0 = (int64_t)blockIdx.x * kRows, step = s.H * s.K,
                base = b * s.L * step + h * s.K;
  const int64_t keys = lengths ? min((int64_t)max(lengths[b], 0), s.L) : s.L;
  const C* bias_row = bias + h * (2 * s.L - 1) + s.L - 1 - (q0 + row);
  stage<T, C>(q + base + q0 * step, qs, kRows, s.L - q0, step, K, (C)s.scale);
  C top = -INFINITY, sum = 0, acc[kColumns] = {};
  for (int64_t k0 = 0; k0 < keys; k0 += kTile) {
    __syncthreads();
    stage<T, C>(k + base + k0 * step, ks, kTile, keys - k0, step, K, (C)1);
    stage<T, C>(v + base + k0 * step, vs, kTile, keys - k0, step, K, (C)1);
    __syncthreads();
    C score[kPer] = {};
    for (int c = 0; c < K; ++c) {
      const C x = qs[row * ld + c];
#pragma unroll
      for (int i = 0; i < kPer; ++i) score[i] += x * ks[(lane + i * kLanes) * ld + c];
    }
    C high = top;
#pragma unroll
    for (int i = 0; i < kPer; ++i) {
      const int64_t j = k0 + lane + i * kLanes;
      score[i] = j < keys && q0 + row < s.L ? score[i] + bias_row[j] : (C)-INFINITY;
      high = score[i] > high ? score[i] : high;
    }
#pragma unroll
    for (int d = kLanes / 2; d > 0; d /= 2) {
      const C other = __shfl_xor_sync(0xffffffffu, high, d);
      high = other > high ? other : high;
    }
    // A query beyond the end has only scores of -inf: its values stay zero and are not stored.
    const C shift = high == (C)-INFINITY ? (C)0 : high, shrink = exp_of(top - shift);
    top = high;
    sum *= shrink;
#pragma unroll
    for (int i = 0; i < kPer; ++i) {
      const C e = exp_of(score[i] - shift);
      p[lane + i * kLanes] = e;
      sum += e;
    }
    __syncwarp();
#pragma unroll
    for (int n = 0; n < kColumns; ++n) acc[n] *= shrink;
    for (int j = 0; j < kTile; ++j) {
      const C e = p[j];
#pragma unroll
      for (int n = 0; n < kColumns; ++n) {
        if (lane + n * kLanes < K) acc[n] += e * vs[j * ld + lane + n * kLanes];
      }
    }
  }
#pragma unroll
  for (int d = kLanes / 2; d > 0; d /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, d);
  if (q0 + row >= s.L) return;
  const C inverse = keys > 0 ? (C)1 / sum : (C)0;
  T* out = o + base + (q0 + row) * step;
#pragma unroll
  for (int n = 0; n < kColumns; ++n) {
    if (lane + n * kLanes < K) out[lane + n * kLanes] = store_as<T>(acc[n] * inverse);
  }
}

}  // namespace

void bias_attention(const BiasAttention& a) {
  with_dtype(a.dtype, "dtype", [&](auto zero) {
    using T = decltype(zero);
    using C = compute_t<T>;
    if (a.B * a.H * a.L == 0) return;
    if (a.B * a.H > 65535 || a.L > (1 << 20))
      fail(RCM_E_SHAPE, "want at most 65535 heads over all samples and 2^20 tokens");
    const auto kernel = bias_attention_kernel<T>;
    const size_t bytes = shared_bytes<C>(a.K);
    cuda_check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes), "shared memory");
    const auto in = [](const void* p) { return static_cast<const T*>(p); };
    const dim3 grid((unsigned)ceil_div(a.L, kRows), (unsigned)(a.B * a.H));
    queue_kernel(kernel, grid, kThreads, bytes, in(a.q), in(a.k), in(a.v), static_cast<const C*>(a.bias), a.lengths,
                 static_cast<T*>(a.o), Sizes{a.H, a.L, a.K, a.scale});
  });
}

}  // namespace rcm::text_encoder
