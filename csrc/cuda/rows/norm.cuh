// Shared by the norms: the layout of a row over threads, streaming loads, rows prefetched to shared memory, column
// sums.
#pragma once
#include "cuda/ptx/control.cuh"
#include "cuda/ptx/copy.cuh"
#include "slots.cuh"

namespace rcm {

// ---- arithmetic ---------------------------------------------------------------------------------------------------
// The hardware's estimate and one Newton step: within 1-2 ulp, at a fifth of the instructions of a division.
__device__ inline float inv_sqrt(float v) {
  const float r = rsqrtf(v);
  return fma(__fmul_rn(0.5f, r), fma(-__fmul_rn(v, r), r, 1.0f), r);
}
__device__ inline double inv_sqrt(double v) { return __drcp_rn(__dsqrt_rn(v)); }

// ---- a row over threads -------------------------------------------------------------------------------------------
// On the fast path a thread holds kRowShare elements of a row in registers, and a row occupies a warp or a block. f64,
// and widths or addresses that do not allow packs, take the general kernels, which walk the row in memory.
constexpr int kRowShare = 16;
constexpr int kRowMax = 8192;
constexpr int kRowThreads = kRowMax / kRowShare;
// Up to this block size (rows of 5120) parameters are kept across rows.
constexpr int kKeepThreads = 320;
// With a tangent: at most 136 registers, so that 5 blocks of 96 threads (1536 columns) fit.
constexpr int kTangentThreads = 480;
// With rows staged in shared memory: at most 112 registers, and 6 blocks.
constexpr int kStagedThreads = 576;
// Backward: as many rows per block as fit, because each block leaves one row of column sums.
constexpr int kBackThreads = 640;
constexpr int kBackRows = kBackThreads / 32;
// Rows in flight to shared memory in a backward pass.
constexpr int kRowStages = 3;
constexpr int kAnyThreads = 256;

// Elements of a pack: 16 bytes of the wider of the two types.
template <class X, class Y>
constexpr int kRowPack = 16 / (int)(sizeof(X) > sizeof(Y) ? sizeof(X) : sizeof(Y));

// x: threads per row; y: rows per block (more than one only where a row is a warp and needs no barrier).
inline dim3 row_block(int64_t D) {
  const unsigned threads = (unsigned)(ceil_div(ceil_div(D, kRowShare), 32) * 32);
  return dim3(threads, threads == 32 ? 4 : 1);
}

// Synchronises the threads of a row. With `Several` rows per block, each row has its own hardware barrier.
template <bool Several>
__device__ inline void row_sync() {
  if (!Several || blockDim.y == 1) __syncthreads();
  else ptx::named_sync((int)threadIdx.y + 1, (int)blockDim.x);
}

// block_sum_once over the threads of a row; `shared` belongs to that row.
template <bool Several, int N, class C>
__device__ inline void row_sum_once(C (&v)[N], C* shared) {
  sum_warps(v, shared, (int)(blockDim.x >> 5), [] { row_sync<Several>(); });
}

template <class X, class Y>
bool row_fits(const X* x, const Y* y, int64_t D) {
  if (std::is_same<X, double>::value || D > kRowMax || D % kRowPack<X, Y> != 0) return false;
  return aligned(x, 16) && aligned(y, 16);
}

inline bool shared_fits(size_t bytes) { return bytes + 12 * 1024 <= gpu().shared_per_block; }

// The block of a backward pass, which needs bytes(block) of shared memory.
template <class Bytes>
dim3 back_block(int64_t D, Bytes&& bytes) {
  dim3 block = row_block(D);
  block.y = block.x <= kBackThreads ? kBackThreads / block.x : 1;
  while (block.y > 1 && !shared_fits(bytes(block))) --block.y;
  return block;
}

// ---- loads --------------------------------------------------------------------------------------------------------
// Activations are read once: they bypass L1, which keeps parameters and tables.
template <int V, class T>
__device__ inline Raw<T, V> fetch_once(const T* p) {
  using R = Raw<T, V>;
  static_assert(R::kWords && (R::N == 4 || R::N == 2), "a pack is one load");
  R raw;
  if constexpr (R::N == 4) ptx::load_streaming(p, raw.u[0], raw.u[1], raw.u[2], raw.u[3]);
  else ptx::load_streaming(p, raw.u[0], raw.u[1]);
  return raw;
}

// `vec` says whether the address may be read as packs.
template <int V, class C, class T>
__device__ inline void load_values(const T* p, bool vec, C (&out)[V]) {
  if (V > 1 && vec) {
    load_pack<V>(p, out);
  } else {
#pragma unroll
    for (int i = 0; i < V; ++i) out[i] = (C)load_as(p[i]);
  }
}
template <int V, class C>
__device__ inline void load_param(const void* p, int64_t i, int32_t dtype, bool vec, C (&out)[V]) {
  switch (dtype) {
    case RCM_F32: return load_values<V>(static_cast<const float*>(p) + i, vec, out);
    case RCM_BF16: return load_values<V>(static_cast<const bf16*>(p) + i, vec, out);
    case RCM_F16: return load_values<V>(static_cast<const f16*>(p) + i, vec, out);
    default: return load_values<V>(static_cast<const double*>(p) + i, false, out);
  }
}
template <int V, class C, class T>
__device__ inline void store_values(T* p, bool vec, const C (&in)[V]) {
  if (V > 1 && vec) {
    store_pack<V>(p, in);
  } else {
#pragma unroll
    for (int i = 0; i < V; ++i) p[i] = store_as<T>(in[i]);
  }
}

// ---- rows prefetched to shared memory -----------------------------------------------------------------------------
// The next rows of x and of y_bar (or x_dot). A thread reads only what it copied itself, so no barrier is needed.
template <class X, class Y, int V>
struct RowPipe {
  static constexpr int P = kRowShare / V;
  Pack<X, V>* xs;
  Pack<Y, V>* ys;
  int pitch;

  __host__ __device__ static size_t bytes(dim3 block) {
    return (size_t)kRowStages * P * block.x * block.y * (sizeof(Pack<X, V>) + sizeof(Pack<Y, V>));
  }

  __device__ explicit RowPipe(unsigned char* memory) {
    pitch = (int)(blockDim.x * blockDim.y);
    const int t = (int)(threadIdx.y * blockDim.x + threadIdx.x);
    xs = reinterpret_cast<Pack<X, V>*>(memory) + t;
    ys = reinterpret_cast<Pack<Y, V>*>(memory + (size_t)kRowStages * P * pitch * sizeof(Pack<X, V>)) + t;
  }
  // Must be called for every stage, also without a row to load: wait() counts groups. A null y is not loaded.
  __device__ void issue(int stage, bool valid, const X* x, const Y* y, const int (&at)[P]) {
    if (valid) {
#pragma unroll
      for (int k = 0; k < P; ++k) {
        if (at[k] < 0) continue;
        ptx::copy_async<(int)sizeof(Pack<X, V>)>(xs + (stage * P + k) * pitch, x + at[k]);
        if (y) ptx::copy_async<(int)sizeof(Pack<Y, V>)>(ys + (stage * P + k) * pitch, y + at[k]);
      }
    }
    ptx::copy_commit();
  }
  __device__ void wait() { ptx::copy_wait<kRowStages - 1>(); }
  __device__ const X* x(int stage, int k) const { return xs[(stage * P + k) * pitch].v; }
  __device__ const Y* y(int stage, int k) const { return ys[(stage * P + k) * pitch].v; }
};

// ---- column sums --------------------------------------------------------------------------------------------------
// out[c] = fold[c] + fold[c + period] + ...: the sums of a block over its rows.
template <class C>
__device__ void fold_columns(const C* fold, int count, int period, C* out) {
  __syncthreads();
  for (int c = (int)(threadIdx.y * blockDim.x + threadIdx.x); c < period; c += (int)(blockDim.x * blockDim.y)) {
    C total = 0;
    for (int i = c; i < count; i += period) total += fold[i];
    out[c] = total;
  }
}

// Number of blocks that share the rows of one sample: as many as run at once, each with a few rows at least. More than
// 48 KiB of shared memory, static included, must be requested explicitly.
template <class Kernel>
int64_t slots_for(Kernel kernel, dim3 block, size_t shared, int64_t samples, int64_t rows) {
  if (shared > 40 * 1024)
    cuda_check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)shared), "shared memory");
  int blocks = 0;
  cuda_check(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, kernel, (int)(block.x * block.y), shared),
             "occupancy");
  const int64_t room = (int64_t)gpu().sms * (blocks > 0 ? blocks : 1) / samples,
                work = ceil_div(rows, 4 * (int64_t)block.y);
  const int64_t slots = room < work ? room : work;
  return slots > 1 ? slots : 1;
}

// As many blocks as run at once, or fewer when there are fewer rows.
template <class Kernel>
unsigned blocks_for(Kernel kernel, dim3 block, size_t shared, int64_t rows) {
  if (shared > 40 * 1024)
    cuda_check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)shared), "shared memory");
  int blocks = 0;
  cuda_check(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, kernel, (int)(block.x * block.y), shared),
             "occupancy");
  const int64_t room = (int64_t)gpu().sms * (blocks > 0 ? blocks : 1), wanted = ceil_div(rows, (int64_t)block.y);
  return (unsigned)(room < wanted ? room : wanted);
}

}  // namespace rcm
