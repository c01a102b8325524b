// The video autoencoder around its convolutions: norm over channels, layouts, tiles, softmax of rows.
#include "cuda/runtime/common.cuh"
#include "shared/ops/video.h"

namespace rcm::video {
namespace {

constexpr int kThreads = 256;

inline unsigned blocks_for(int64_t n, int64_t most_per_sm) {
  const int64_t wanted = ceil_div(n, kThreads), most = (int64_t)gpu().sms * most_per_sm;
  return (unsigned)(wanted < 1 ? 1 : wanted < most ? wanted : most);
}

__device__ inline float silu_of(float v) { return __fdividef(v, 1.0f + __expf(-v)); }
__device__ inline double silu_of(double v) { return v / (1.0 + exp(-v)); }

// ---- channel norm -------------------------------------------------------------------------------------------------
constexpr int kPacks = 3;  // 96, 192 and 384 channels are three packs per thread over a power of two of threads

// A row is spread over Lanes threads of kPacks packs of 16 bytes.
template <class T, int Lanes>
__global__ void __launch_bounds__(kThreads)
    norm_packs(const T* x, const void* g, T* y, int64_t M, int silu, float eps, int32_t g_dtype) {
  await_queued();
  constexpr int V = 16 / sizeof(T), C = Lanes * kPacks * V;
  const int lane = threadIdx.x % Lanes;
  float gamma[kPacks][V];
  const float root = sqrtf((float)C);
#pragma unroll
  for (int p = 0; p < kPacks; ++p) {
#pragma unroll
    for (int j = 0; j < V; ++j) gamma[p][j] = root * load_any<float>(g, (p * Lanes + lane) * V + j, g_dtype);
  }
  constexpr int rows = kThreads / Lanes;
  // All threads of a warp take part in the shuffles, also those beyond the last row.
  const int64_t end = (M + rows - 1) / rows;
  for (int64_t block = blockIdx.x; block < end; block += gridDim.x) {
    const int64_t m = block * rows + threadIdx.x / Lanes;
    float v[kPacks][V], squares = 0;
#pragma unroll
    for (int p = 0; p < kPacks; ++p) {
      if (m < M) {
        load_pack<V>(x + m * C + (p * Lanes + lane) * V, v[p]);
      } else {
#pragma unroll
        for (int j = 0; j < V; ++j) v[p][j] = 0;
      }
#pragma unroll
      for (int j = 0; j < V; ++j) squares = fmaf(v[p][j], v[p][j], squares);
    }
#pragma unroll
    for (int o = Lanes / 2; o > 0; o >>= 1) squares += __shfl_xor_sync(0xffffffffu, squares, o);
    const float factor = 1.0f / fmaxf(sqrtf(squares), eps);
    if (m >= M) continue;
#pragma unroll
    for (int p = 0; p < kPacks; ++p) {
#pragma unroll
      for (int j = 0; j < V; ++j) {
        const float u = v[p][j] * factor * gamma[p][j];
        v[p][j] = silu ? silu_of(u) : u;
      }
      store_pack<V>(y + m * C + (p * Lanes + lane) * V, v[p]);
    }
  }
}

// Any width: one warp per row.
template <class T>
__global__ void __launch_bounds__(kThreads)
    norm_rows(const T* x, const void* g, T* y, int64_t M, int64_t C, int silu, double eps, int32_t g_dtype) {
  await_queued();
  using F = compute_t<T>;
  const int lane = threadIdx.x % 32;
  for (int64_t m = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) / 32; m < M;
       m += (int64_t)gridDim.x * blockDim.x / 32) {
    F squares = 0;
    for (int64_t c = lane; c < C; c += 32) {
      const F v = (F)load_as(x[m * C + c]);
      squares = fma(v, v, squares);
    }
    squares = warp_sum(squares);
    const F length = sqrt(squares), factor = sqrt((F)C) / (length > (F)eps ? length : (F)eps);
    for (int64_t c = lane; c < C; c += 32) {
      const F u = (F)load_as(x[m * C + c]) * factor * load_any<F>(g, c, g_dtype);
      y[m * C + c] = store_as<T>(silu ? silu_of(u) : u);
    }
  }
}

template <class T>
void norm(const ChannelNorm& a) {
  const T* x = static_cast<const T*>(a.x);
  T* y = static_cast<T*>(a.y);
  const int silu = a.silu ? 1 : 0;
  if constexpr (!std::is_same<T, double>::value) {
    constexpr int V = 16 / sizeof(T);
    const int64_t lanes = a.C % (kPacks * V) == 0 ? a.C / (kPacks * V) : 0;
    const auto launch = [&](auto count) {
      constexpr int L = decltype(count)::value;
      queue_kernel(norm_packs<T, L>, blocks_for(a.M * L, 8), kThreads, 0, x, a.g, y, a.M, silu, (float)a.eps,
                   a.g_dtype);
    };
    if (aligned(x, 16) && aligned(y, 16)) {
      if (lanes == 4) return launch(std::integral_constant<int, 4>{});
      if (lanes == 8) return launch(std::integral_constant<int, 8>{});
      if (lanes == 16) return launch(std::integral_constant<int, 16>{});
      if (lanes == 32) return launch(std::integral_constant<int, 32>{});
    }
  }
  queue_kernel(norm_rows<T>, blocks_for(a.M * 32, 16), kThreads, 0, x, a.g, y, a.M, a.C, silu, a.eps, a.g_dtype);
}

// ---- layouts ------------------------------------------------------------------------------------------------------
struct LastShape {
  int64_t C, T, Y, X, c_stride, t_stride, y_stride, Cy;
  bool packs;  // rows of y are aligned packs of 16 bytes
};

// One thread per position: both the reads and the writes of neighbouring threads are contiguous.
template <class A, class Z>
__global__ void __launch_bounds__(kThreads)
    last_kernel(const A* x, const double* mul, const double* add, Z* y, const LastShape s) {
  await_queued();
  using F = std::conditional_t<std::is_same<A, double>::value || std::is_same<Z, double>::value, double, float>;
  const int64_t n = s.T * s.Y * s.X;
  for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += (int64_t)gridDim.x * blockDim.x) {
    const A* from = x + i / (s.X * s.Y) * s.t_stride + i / s.X % s.Y * s.y_stride + i % s.X;
    const auto value = [&](int64_t c) -> F {
      if (c >= s.C) return 0;
      const F v = (F)load_as(from[c * s.c_stride]);
      return v * (mul ? (F)mul[c] : (F)1) + (add ? (F)add[c] : (F)0);
    };
    if (sizeof(Z) == 2 && s.packs) {
      F v[8];
#pragma unroll
      for (int c = 0; c < 8; ++c) v[c] = value(c);
      store_pack<8>(y + i * 8, v);
    } else {
      for (int64_t c = 0; c < s.Cy; ++c) y[i * s.Cy + c] = store_as<Z>(value(c));
    }
  }
}

template <class A, class Z>
__global__ void __launch_bounds__(kThreads) first_kernel(const A* x, const double* mul, const double* add, Z* y,
                                                         int64_t C, int64_t N, int64_t Cx, int64_t y_stride) {
  await_queued();
  using F = std::conditional_t<std::is_same<A, double>::value || std::is_same<Z, double>::value, double, float>;
  for (int64_t n = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; n < N; n += (int64_t)gridDim.x * blockDim.x) {
    for (int64_t c = 0; c < C; ++c) {
      const F v = (F)load_as(x[n * Cx + c]);
      y[c * y_stride + n] = store_as<Z>(v * (mul ? (F)mul[c] : (F)1) + (add ? (F)add[c] : (F)0));
    }
  }
}

template <class F>
__device__ inline F ramp(int64_t i, int64_t size, int64_t low, int64_t high) {
  F f = 1;
  if (low > 0) f = fmin(f, ((F)i + (F)0.5) / (F)low);
  if (high > 0) f = fmin(f, ((F)(size - i) - (F)0.5) / (F)high);
  return f;
}

template <class A, class Z>
__global__ void __launch_bounds__(kThreads) blend_kernel(const A* x, Z* y, const TileShape s) {
  await_queued();
  using F = std::conditional_t<std::is_same<A, double>::value || std::is_same<Z, double>::value, double, float>;
  const int64_t total = s.n * s.h * s.w;
  for (int64_t e = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; e < total; e += (int64_t)gridDim.x * blockDim.x) {
    const int64_t j = e % s.w, i = e / s.w % s.h, at = ((e / (s.w * s.h)) * s.H + s.y0 + i) * s.W + s.x0 + j;
    const F weight = ramp<F>(i, s.h, s.top, s.bottom) * ramp<F>(j, s.w, s.left, s.right);
    y[at] = store_as<Z>((F)load_as(y[at]) + (F)load_as(x[e]) * weight);
  }
}

// ---- softmax ------------------------------------------------------------------------------------------------------
// One block per row: running maximum and sum in one pass, values in a second one that finds the row in cache.
template <class A, class Z>
__global__ void __launch_bounds__(kThreads) softmax_kernel(const A* x, Z* y, int64_t N, double scale) {
  await_queued();
  using F = compute_t<A>;
  __shared__ F tops[32], sums[32];
  const A* row = x + (int64_t)blockIdx.x * N;
  Z* out = y + (int64_t)blockIdx.x * N;
  const F factor = (F)scale;
  F top = -INFINITY, sum = 0;
  const auto take = [&](F v, F weight) {
    if (v > top) {
      sum *= exp(top - v);
      top = v;
    }
    if (weight != 0) sum += weight * exp(v - top);
  };
  for (int64_t i = threadIdx.x; i < N; i += kThreads) take((F)load_as(row[i]) * factor, 1);
#pragma unroll
  for (int o = 16; o > 0; o >>= 1) {
    const F other = __shfl_xor_sync(0xffffffffu, top, o), weight = __shfl_xor_sync(0xffffffffu, sum, o),
            high = top > other ? top : other;
    sum = (sum != 0 ? sum * exp(top - high) : 0) + (weight != 0 ? weight * exp(other - high) : 0);
    top = high;
  }
  if (threadIdx.x % 32 == 0) tops[threadIdx.x / 32] = top, sums[threadIdx.x / 32] = sum;
  __syncthreads();
  F high = tops[0], total = 0;
  for (int i = 1; i < kThreads / 32; ++i) high = tops[i] > high ? tops[i] : high;
  for (int i = 0; i < kThreads / 32; ++i) total += sums[i] != 0 ? sums[i] * exp(tops[i] - high) : 0;
  const F inverse = 1 / total;
  for (int64_t i = threadIdx.x; i < N; i += kThreads)
    out[i] = store_as<Z>(exp((F)load_as(row[i]) * factor - high) * inverse);
}

// Calls body(A{}, Z{}) for any two float dtypes; unlike with_dtypes, f64 may be mixed with others.
template <class Body>
void with_any(int32_t a, int32_t b, Body&& body) {
  with_dtype(a, "x", [&](auto first) { with_dtype(b, "y", [&](auto second) { body(first, second); }); });
}

}  // namespace

void channel_norm(const ChannelNorm& a) {
  if (a.M == 0) return;
  with_dtype(a.dtype, "dtype", [&](auto zero) { norm<decltype(zero)>(a); });
}

void channels_last(const ChannelsLast& a) {
  const int64_t n = a.T * a.Y * a.X;
  if (n == 0) return;
  const LastShape shape{a.C, a.T, a.Y, a.X, a.c_stride, a.t_stride, a.y_stride, a.Cy, a.Cy == 8 && aligned(a.y, 16)};
  with_any(a.x_dtype, a.y_dtype, [&](auto x, auto y) {
    using A = decltype(x);
    using Z = decltype(y);
    queue_kernel(last_kernel<A, Z>, blocks_for(n, 32), kThreads, 0, static_cast<const A*>(a.x), a.mul, a.add,
                 static_cast<Z*>(a.y), shape);
  });
}

void channels_first(const ChannelsFirst& a) {
  if (a.N == 0) return;
  with_any(a.x_dtype, a.y_dtype, [&](auto x, auto y) {
    using A = decltype(x);
    using Z = decltype(y);
    queue_kernel(first_kernel<A, Z>, blocks_for(a.N, 32), kThreads, 0, static_cast<const A*>(a.x), a.mul, a.add,
                 static_cast<Z*>(a.y), a.C, a.N, a.Cx, a.y_stride);
  });
}

void blend_tile(const BlendTile& a) {
  const int64_t n = a.shape.n * a.shape.h * a.shape.w;
  if (n == 0) return;
  with_any(a.x_dtype, a.y_dtype, [&](auto x, auto y) {
    using A = decltype(x);
    using Z = decltype(y);
    queue_kernel(blend_kernel<A, Z>, blocks_for(n, 32), kThreads, 0, static_cast<const A*>(a.x), static_cast<Z*>(a.y),
                 a.shape);
  });
}

void softmax_rows(const SoftmaxRows& a) {
  if (a.M > INT32_MAX) fail(RCM_E_SHAPE, "M: want below 2^31");
  if (a.M == 0) return;
  with_dtypes(a.x_dtype, a.y_dtype, "x, y", [&](auto x, auto y) {
    using A = decltype(x);
    using Z = decltype(y);
    queue_kernel(softmax_kernel<A, Z>, (unsigned)a.M, kThreads, 0, static_cast<const A*>(a.x), static_cast<Z*>(a.y),
                 a.N, a.scale);
  });
}

}  // namespace rcm::video
