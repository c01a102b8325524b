// Attention of the text encoder: additive relative bias per head, key lengths per sample; no derivative. A block takes a tile of
// queries of one head through all keys by online softmax; statistics and products are f32 (f64 for f64).
#include "cuda/runtime/common.cuh"

using namespace rcm;

namespace {

constexpr int kThreads = 256, kLanes = 8, kRows = kThreads / kLanes, kMaxWidth = 128;

struct Sizes {
  int64_t H, L, K;
  double scale;
};

// Keys of a tile: the block's shared memory stays below 100 KiB in f64 too.
template <class C>
constexpr int kKeys = std::is_same<C, double>::value ? 16 : 32;

template <class C>
size_t shared_bytes(int64_t K) {
  return (size_t)((kRows + 2 * kKeys<C>)*(K + 1) + kRows * (kKeys<C> + 1)) * sizeof(C);
}

// Rows [first, first + kept) of a head as C, zero up to `rows`.
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
__global__ void __launch_bounds__(kThreads) bias_attention_kernel(const T* q, const T* k, const T* v, const compute_t<T>* bias, const int32_t* lengths, T* o,
                                                                  Sizes s) {
  await_queued();
  using C = compute_t<T>;
  constexpr int kTile = kKeys<C>, kPer = kTile / kLanes, kColumns = kMaxWidth / kLanes;
  extern __shared__ __align__(16) unsigned char memory[];
  const int K = (int)s.K, ld = K + 1, row = threadIdx.x / kLanes, lane = threadIdx.x % kLanes;
  C *qs = reinterpret_cast<C*>(memory), *ks = qs + kRows * ld, *vs = ks + kTile * ld, *p = vs + kTile * ld + row * (kTile + 1);
  const int64_t b = blockIdx.y / s.H, h = blockIdx.y % s.H, q0 = (int64_t)blockIdx.x * kRows, step = s.H * s.K, base = b * s.L * step + h * s.K;
  const int64_t keys = lengths ? min((int64_t)max(lengths[b], 0), s.L) : s.L;
  const C* own = bias + h * (2 * s.L - 1) + s.L - 1 - (q0 + row);
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
      score[i] = j < keys && q0 + row < s.L ? score[i] + own[j] : (C)-INFINITY;
      high = score[i] > high ? score[i] : high;
    }
#pragma unroll
    for (int d = kLanes / 2; d > 0; d /= 2) {
      const C other = __shfl_xor_sync(0xffffffffu, high, d);
      high = other > high ? other : high;
    }
    // A row past the end has no score at all: it keeps zeros and is not stored.
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

rcm_status rcm_bias_attention(const void* q, const void* k, const void* v, const void* bias, const int32_t* lengths, void* o, int64_t B, int64_t H,
                              int64_t L, int64_t K, double scale, int32_t dtype) {
  return gpu_call("bias_attention", [&] {
    need(q, "q");
    need(k, "k");
    need(v, "v");
    need(bias, "bias");
    need(o, "o");
    size_at_least(B, 0, "B");
    size_at_least(H, 0, "H");
    size_at_least(L, 0, "L");
    size_at_least(K, 1, "K");
    if (K > kMaxWidth) fail(RCM_E_SHAPE, "K: want at most %d, got %lld", kMaxWidth, (long long)K);
    with_dtype(dtype, "dtype", [&](auto zero) {
      using T = decltype(zero);
      using C = compute_t<T>;
      if (B * H * L == 0) return;
      if (B * H > 65535 || L > (1 << 20)) fail(RCM_E_SHAPE, "want at most 65535 heads over all samples and 2^20 tokens");
      const size_t bytes = shared_bytes<C>(K);
      check(cudaFuncSetAttribute(bias_attention_kernel<T>, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes), "shared memory");
      const dim3 grid((unsigned)ceil_div(L, kRows), (unsigned)(B * H));
      queue_kernel(bias_attention_kernel<T>, grid, kThreads, bytes, static_cast<const T*>(q), static_cast<const T*>(k), static_cast<const T*>(v),
                   static_cast<const C*>(bias), lengths, static_cast<T*>(o), Sizes{H, L, K, scale});
    });
  });
}
