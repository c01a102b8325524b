// Shared by every CUDA op: the device, error checks, launches, storage types, dispatch, reductions.
#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cmath>
#include <cstring>
#include <initializer_list>
#include <type_traits>
#include <utility>

#include "shared/dtype.h"
#include "shared/guard.h"
#include "cuda/ptx/launch.cuh"

namespace rcm {

// ---- device -------------------------------------------------------------------------------------------------------
struct Gpu {
  int index = -1;
  int sms = 0, major = 0, minor = 0;
  size_t l2_bytes = 0, memory_bytes = 0, shared_per_block = 0;
  char name[256] = "";
  cudaStream_t compute = nullptr, copies = nullptr;
  bool debug = false;  // RCM_DEBUG=sync: wait after every call, so that a failure names its op
  bool early = false;  // kernels may start before their predecessor has finished; off with RCM_DEBUG=ordered or sync
};

// The device chosen by rcm_init (GPU 0 by default), made current on the calling thread.
Gpu& gpu();
inline cudaStream_t stream() { return gpu().compute; }
// Whether calls are being recorded (rcm_graph_begin).
bool& recording();
// Whether f32 products may run as sums of bf16 products (rcm_f32_products).
bool split_products();
// Whether equal inputs must give equal bits in every run (rcm_deterministic).
bool deterministic();

[[noreturn]] void cuda_fail(cudaError_t error, const char* what);
inline void cuda_check(cudaError_t error, const char* what) {
  if (error != cudaSuccess) cuda_fail(error, what);
}

// Device memory for the duration of one call. It may be freed while kernels still use it, because all work runs on one
// stream.
class Workspace {
 public:
  explicit Workspace(size_t bytes);
  ~Workspace();
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;
  template <class T>
  T* as() const {
    return static_cast<T*>(memory_);
  }

 private:
  void* memory_ = nullptr;
};

// ---- launches -----------------------------------------------------------------------------------------------------
// Launches a kernel that may start while its predecessor still runs (on sm_90: programmatic dependent launch), which
// hides its start and its first arithmetic. Every thread must call `await_queued` before it touches memory.
template <class... P, class... A>
void queue_kernel(void (*kernel)(P...), dim3 grid, dim3 block, size_t shared_bytes, A&&... args) {
  cudaLaunchAttribute early;
  early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  early.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream();
  config.attrs = &early;
  config.numAttrs = gpu().early ? 1 : 0;
  cuda_check(cudaLaunchKernelEx(&config, kernel, std::forward<A>(args)...), "launch");
}
using ptx::await_queued;
using ptx::let_next_start;

// ---- arithmetic ---------------------------------------------------------------------------------------------------
// The compiler may fuse a product and a sum in one kernel and not in another. Where a _jvp must repeat the primal bit
// for bit, the rounding is spelled out.
__device__ inline float mul_exact(float a, float b) { return __fmul_rn(a, b); }
__device__ inline double mul_exact(double a, double b) { return __dmul_rn(a, b); }
__device__ inline float add_exact(float a, float b) { return __fadd_rn(a, b); }
__device__ inline double add_exact(double a, double b) { return __dadd_rn(a, b); }

// ---- storage types ------------------------------------------------------------------------------------------------
using bf16 = __nv_bfloat16;
using f16 = __half;

template <class T>
struct ComputeOf {
  using type = float;
};
template <>
struct ComputeOf<double> {
  using type = double;
};
// The compute type of a storage type: double for double, else float.
template <class T>
using compute_t = typename ComputeOf<T>::type;

__host__ __device__ inline float load_as(float v) { return v; }
__host__ __device__ inline double load_as(double v) { return v; }
__device__ inline float load_as(bf16 v) { return __bfloat162float(v); }
__device__ inline float load_as(f16 v) { return __half2float(v); }

template <class T, class C>
__device__ inline T store_as(C v) {
  if constexpr (std::is_same<T, bf16>::value) return __float2bfloat16_rn((float)v);
  else if constexpr (std::is_same<T, f16>::value) return __float2half_rn((float)v);
  else return (T)v;
}

// V elements moved together, up to 16 bytes per instruction. The address is a multiple of the pack's size, or of 16 if
// larger.
template <class T, int V>
struct alignas(sizeof(T) * V < 16 ? sizeof(T) * V : 16) Pack {
  T v[V];
};

// A pack as 32-bit registers. 16-bit elements would be unpacked on arrival, which stalls an asynchronous load, and be
// stored four bytes at a time; kept packed they avoid both.
template <class T, int V>
struct Raw {
  static constexpr bool kWords = sizeof(T) * V % 4 == 0 && sizeof(T) <= 4;
  using Unit = std::conditional_t<kWords, uint32_t, T>;
  static constexpr int N = kWords ? (int)sizeof(T) * V / 4 : V;
  Unit u[N];
};

template <class Two>
__device__ inline uint32_t bits_of(const Two& two) {
  uint32_t bits;
  memcpy(&bits, &two, 4);
  return bits;
}
template <int V, class T>
__device__ inline Raw<T, V> load_raw(const T* p) {
  using R = Raw<T, V>;
  R raw;
  if constexpr (R::kWords && R::N % 4 == 0) {
#pragma unroll
    for (int i = 0; i < R::N; i += 4) {
      const uint4 four = reinterpret_cast<const uint4*>(p)[i / 4];
      raw.u[i] = four.x, raw.u[i + 1] = four.y, raw.u[i + 2] = four.z, raw.u[i + 3] = four.w;
    }
  } else if constexpr (R::kWords && R::N == 2) {
    const uint2 two = *reinterpret_cast<const uint2*>(p);
    raw.u[0] = two.x, raw.u[1] = two.y;
  } else {
    const Pack<typename R::Unit, R::N> pack = *reinterpret_cast<const Pack<typename R::Unit, R::N>*>(p);
#pragma unroll
    for (int i = 0; i < R::N; ++i) raw.u[i] = pack.v[i];
  }
  return raw;
}
template <int V, class T>
__device__ inline void store_raw(T* p, const Raw<T, V>& raw) {
  using R = Raw<T, V>;
  if constexpr (R::kWords && R::N % 4 == 0) {
#pragma unroll
    for (int i = 0; i < R::N; i += 4)
      reinterpret_cast<uint4*>(p)[i / 4] = make_uint4(raw.u[i], raw.u[i + 1], raw.u[i + 2], raw.u[i + 3]);
  } else if constexpr (R::kWords && R::N == 2) {
    *reinterpret_cast<uint2*>(p) = make_uint2(raw.u[0], raw.u[1]);
  } else {
    Pack<typename R::Unit, R::N> pack;
#pragma unroll
    for (int i = 0; i < R::N; ++i) pack.v[i] = raw.u[i];
    *reinterpret_cast<Pack<typename R::Unit, R::N>*>(p) = pack;
  }
}
template <int V, class C, class T>
__device__ inline void unpack(const Raw<T, V>& raw, C (&out)[V]) {
  if constexpr (!Raw<T, V>::kWords) {
#pragma unroll
    for (int i = 0; i < V; ++i) out[i] = (C)load_as(raw.u[i]);
  } else if constexpr (sizeof(T) == 4) {
#pragma unroll
    for (int i = 0; i < V; ++i) out[i] = (C)__uint_as_float(raw.u[i]);
  } else {
#pragma unroll
    for (int i = 0; i < V / 2; ++i) {
      if constexpr (std::is_same<T, bf16>::value) {
        out[2 * i] = (C)__uint_as_float(raw.u[i] << 16);
        out[2 * i + 1] = (C)__uint_as_float(raw.u[i] & 0xffff0000u);
      } else {
        const float2 two = __half22float2(*reinterpret_cast<const __half2*>(&raw.u[i]));
        out[2 * i] = (C)two.x, out[2 * i + 1] = (C)two.y;
      }
    }
  }
}
template <int V, class C, class T>
__device__ inline void load_pack(const T* p, C (&out)[V]) {
  unpack<V>(load_raw<V>(p), out);
}
template <class T, int V, class C>
__device__ inline Raw<T, V> pack_raw(const C (&in)[V]) {
  using R = Raw<T, V>;
  R raw;
#pragma unroll
  for (int i = 0; i < R::N; ++i) {
    if constexpr (!R::kWords) raw.u[i] = store_as<T>(in[i]);
    else if constexpr (sizeof(T) == 4) raw.u[i] = __float_as_uint((float)in[i]);
    else if constexpr (std::is_same<T, bf16>::value)
      raw.u[i] = bits_of(__floats2bfloat162_rn((float)in[2 * i], (float)in[2 * i + 1]));
    else raw.u[i] = bits_of(__floats2half2_rn((float)in[2 * i], (float)in[2 * i + 1]));
  }
  return raw;
}
template <int V, class C, class T>
__device__ inline void store_pack(T* p, const C (&in)[V]) {
  store_raw<V>(p, pack_raw<T>(in));
}

// One element of memory whose dtype is known only at run time (parameters, small vectors).
template <class C>
__device__ inline C load_any(const void* p, int64_t i, int32_t dtype) {
  switch (dtype) {
    case RCM_F32: return (C) static_cast<const float*>(p)[i];
    case RCM_BF16: return (C)load_as(static_cast<const bf16*>(p)[i]);
    case RCM_F16: return (C)load_as(static_cast<const f16*>(p)[i]);
    default: return (C) static_cast<const double*>(p)[i];
  }
}
template <class C>
__device__ inline void store_any(void* p, int64_t i, int32_t dtype, C v) {
  switch (dtype) {
    case RCM_F32: static_cast<float*>(p)[i] = (float)v; break;
    case RCM_BF16: static_cast<bf16*>(p)[i] = store_as<bf16>(v); break;
    case RCM_F16: static_cast<f16*>(p)[i] = store_as<f16>(v); break;
    default: static_cast<double*>(p)[i] = (double)v; break;
  }
}

// ---- dispatch -----------------------------------------------------------------------------------------------------
// Calls body(T{}) with the storage type of a float dtype code.
template <class Body>
void with_dtype(int32_t dtype, const char* name, Body&& body) {
  dispatch_float<bf16, f16>(dtype, name, std::forward<Body>(body));
}

// Calls body(A{}, B{}). f64 is paired with f64 only, so there are ten pairs.
template <class Body>
void with_dtypes(int32_t a, int32_t b, const char* names, Body&& body) {
  if ((a == RCM_F64) != (b == RCM_F64)) fail(RCM_E_DTYPE, "%s: f64 does not mix with other dtypes", names);
  if (a == RCM_F64) return body(double{}, double{});
  auto second = [&](auto first) {
    switch (b) {
      case RCM_F32: return body(first, float{});
      case RCM_BF16: return body(first, bf16{});
      case RCM_F16: return body(first, f16{});
      default: fail(RCM_E_DTYPE, "%s: want f32, bf16, f16 or f64, got code %d", names, b);
    }
  };
  switch (a) {
    case RCM_F32: return second(float{});
    case RCM_BF16: return second(bf16{});
    case RCM_F16: return second(f16{});
    default: fail(RCM_E_DTYPE, "%s: want f32, bf16, f16 or f64, got code %d", names, a);
  }
}

inline bool aligned(const void* p, size_t bytes) { return (reinterpret_cast<uintptr_t>(p) & (bytes - 1)) == 0; }
inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// ---- reductions ---------------------------------------------------------------------------------------------------
template <class C>
__device__ inline C warp_sum(C v) {
#pragma unroll
  for (int o = 16; o > 0; o >>= 1) v += __shfl_xor_sync(0xffffffffu, v, o);
  return v;
}

// Sums each of N values over `warps` warps along threadIdx.x, in a fixed order; every thread gets the totals. `sync`
// synchronises these warps; `shared` holds N * 32 elements and is reusable after another barrier.
template <int N, class C, class Sync>
__device__ inline void sum_warps(C (&v)[N], C* shared, int warps, Sync&& sync) {
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
#pragma unroll
  for (int i = 0; i < N; ++i) v[i] = warp_sum(v[i]);
  if (warps == 1) return;
  if (lane == 0) {
#pragma unroll
    for (int i = 0; i < N; ++i) shared[i * 32 + warp] = v[i];
  }
  sync();
  if (warps <= 4) {  // broadcast reads are faster than five exchanges
#pragma unroll
    for (int i = 0; i < N; ++i) {
      v[i] = shared[i * 32];
      for (int w = 1; w < warps; ++w) v[i] += shared[i * 32 + w];
    }
    return;
  }
#pragma unroll
  for (int i = 0; i < N; ++i) v[i] = warp_sum(lane < warps ? shared[i * 32 + lane] : (C)0);
}
// Over the block.
template <int N, class C>
__device__ inline void block_sum_once(C (&v)[N], C* shared) {
  sum_warps(v, shared, (int)((blockDim.x + 31) >> 5), [] { __syncthreads(); });
}
// The same, with `shared` reusable at once.
template <int N, class C>
__device__ inline void block_sum(C (&v)[N], C* shared) {
  block_sum_once(v, shared);
  __syncthreads();
}

}  // namespace rcm
