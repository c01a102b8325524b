// Shared by the element-wise ops and the reductions over samples: one kernel that maps packs, two that fold them.
#pragma once
#include "cuda/runtime/common.cuh"

namespace rcm {

// ---- packs --------------------------------------------------------------------------------------------------------
// Elements of a pack of types A and Z: 16 bytes of the wider one.
template <class A, class Z = A>
constexpr int kPack = 16 / (int)(sizeof(A) > sizeof(Z) ? sizeof(A) : sizeof(Z));

// Whether all of these addresses (null allowed) may be moved as packs of V.
template <int V, class T>
bool pack_aligned(std::initializer_list<const void*> all) {
  for (const void* p : all) {
    if (!aligned(p, alignof(Pack<T, V>))) return false;
  }
  return true;
}

template <int V, class T>
__device__ inline Pack<T, V> fetch(const T* p) {
  return *reinterpret_cast<const Pack<T, V>*>(p);
}
// A null pointer gives zeros; without `vec` the elements are read one by one.
template <int V, class T>
__device__ inline Pack<T, V> fetch_or_zero(const T* p, int64_t i, bool vec = true) {
  Pack<T, V> out{};
  if (p == nullptr) return out;
  if (vec) return fetch<V>(p + i);
#pragma unroll
  for (int j = 0; j < V; ++j) out.v[j] = p[i + j];
  return out;
}

// The same, kept packed in registers until unpacked.
template <int V, class T>
__device__ inline Raw<T, V> raw_or_zero(const T* p, int64_t i, bool vec = true) {
  if (p != nullptr && vec) return load_raw<V>(p + i);
  const Pack<T, V> pack = fetch_or_zero<V>(p, i, vec);
  Raw<T, V> raw;
  static_assert(sizeof raw == sizeof pack, "a pack's bytes");
  memcpy(&raw, &pack, sizeof raw);
  return raw;
}

inline unsigned grid_size(int64_t blocks) {
  if (blocks > 0x7fffffff) fail(RCM_E_SHAPE, "sizes: too much for one launch (%lld blocks)", (long long)blocks);
  return (unsigned)blocks;
}

// ---- map ----------------------------------------------------------------------------------------------------------
// An Op has: Held<V>, the loads of one pack; load(i, held); sample(b), values shared by all elements of a sample;
// finish(sample, i, held), which stores. A thread loads U packs before it finishes the first.
constexpr int kThreads = 256;

template <int V, int U, class Op>
__global__ void __launch_bounds__(kThreads) map_packs(Op op, int64_t N, unsigned per) {
  const int64_t b = blockIdx.x / per, start = b * N, packs = N / V,
                p = (int64_t)(blockIdx.x % per) * (U * kThreads) + threadIdx.x;
  typename Op::template Held<V> held[U];
  await_queued();
#pragma unroll
  for (int u = 0; u < U; ++u) {
    if (p + u * kThreads < packs) op.load(start + (p + u * kThreads) * V, held[u]);
  }
  const auto shared = op.sample(b);
#pragma unroll
  for (int u = 0; u < U; ++u) {
    if (p + u * kThreads < packs) op.finish(shared, start + (p + u * kThreads) * V, held[u]);
  }
  if (V > 1 && p < N - packs * V) {
    typename Op::template Held<1> last;
    op.load(start + packs * V + p, last);
    op.finish(shared, start + packs * V + p, last);
  }
}

// Maps B samples of N elements; `vec`: all addresses allow packs of V.
template <int V, int U, class Op>
void map(const Op& op, int64_t B, int64_t N, bool vec) {
  if (B == 0 || N == 0) return;
  const bool packs = vec && (B == 1 || N % V == 0);
  const int64_t count = packs ? N / V : N, wanted = ceil_div(count, (int64_t)U * kThreads),
                per = wanted > 0 ? wanted : 1;
  const unsigned grid = grid_size(B * per);
  queue_kernel(packs ? map_packs<V, U, Op> : map_packs<1, U, Op>, grid, kThreads, 0, op, N, (unsigned)per);
}

// For ops without values per sample.
struct Nothing {};

// ---- fold ---------------------------------------------------------------------------------------------------------
// An Op has: K doubles of state; start(state); merge(state, other); Held<V> and load as above; fold(held, state);
// wanted(b), false for a sample whose elements must not enter the result; done(b, state), which stores it.
constexpr int kFoldPacks = 2;

template <class Op>
__device__ inline void fold_block(double (&state)[Op::K]) {
  __shared__ double shared[Op::K][kThreads / 32];
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  auto fold_warp = [&](int from) {
    for (int o = from; o > 0; o >>= 1) {
      double other[Op::K];
#pragma unroll
      for (int k = 0; k < Op::K; ++k) other[k] = __shfl_down_sync(0xffffffffu, state[k], o);
      Op::merge(state, other);
    }
  };
  fold_warp(16);
  if (lane == 0) {
#pragma unroll
    for (int k = 0; k < Op::K; ++k) shared[k][warp] = state[k];
  }
  __syncthreads();
  if (warp != 0) return;
  Op::start(state);
  if (lane < kThreads / 32) {
#pragma unroll
    for (int k = 0; k < Op::K; ++k) state[k] = shared[k][lane];
  }
  fold_warp(kThreads / 64);
}

// Folds part blockIdx.x % parts of a sample: `share` packs, or the rest in the last part. With one part per sample no
// second pass is needed.
template <int V, class Op>
__global__ void __launch_bounds__(kThreads, 4)
    fold_packs(Op op, double* partial, int64_t N, int64_t share, unsigned parts) {
  const int64_t b = blockIdx.x / parts, part = blockIdx.x % parts, start = b * N, packs = N / V;
  const int64_t end = (part + 1) * share < packs ? (part + 1) * share : packs;
  double state[Op::K];
  Op::start(state);
  await_queued();
  // The first loads are issued before `wanted` is known, to hide their latency.
  typename Op::template Held<V> held[kFoldPacks];
  int64_t p = part * share + threadIdx.x;
  const auto load = [&] {
#pragma unroll
    for (int u = 0; u < kFoldPacks; ++u) {
      if (p + u * kThreads < end) op.load(start + (p + u * kThreads) * V, held[u]);
    }
  };
  load();
  let_next_start();
  if (op.wanted(b)) {
    while (p < end) {
#pragma unroll
      for (int u = 0; u < kFoldPacks; ++u) {
        if (p + u * kThreads < end) op.fold(held[u], state);
      }
      p += kFoldPacks * kThreads;
      load();
    }
    if (V > 1 && part == parts - 1 && threadIdx.x < N - packs * V) {
      typename Op::template Held<1> last;
      op.load(start + packs * V + threadIdx.x, last);
      op.fold(last, state);
    }
  }
  fold_block<Op>(state);
  if (threadIdx.x != 0) return;
  if (parts == 1) return op.done(b, state);
#pragma unroll
  for (int k = 0; k < Op::K; ++k) partial[(int64_t)blockIdx.x * Op::K + k] = state[k];
}

// Merges the parts of sample blockIdx.x.
template <class Op>
__global__ void __launch_bounds__(kThreads) fold_parts(Op op, const double* partial, unsigned parts) {
  constexpr int kAhead = 4;
  double state[Op::K];
  Op::start(state);
  await_queued();
  let_next_start();
  partial += (int64_t)blockIdx.x * parts * Op::K;
  for (unsigned first = threadIdx.x; first < parts; first += kAhead * kThreads) {
    double other[kAhead][Op::K];
#pragma unroll
    for (int u = 0; u < kAhead; ++u) {
      if (first + u * kThreads >= parts) break;
#pragma unroll
      for (int k = 0; k < Op::K; ++k) other[u][k] = partial[(first + u * kThreads) * Op::K + k];
    }
#pragma unroll
    for (int u = 0; u < kAhead; ++u) {
      if (first + u * kThreads < parts) Op::merge(state, other[u]);
    }
  }
  fold_block<Op>(state);
  if (threadIdx.x == 0) op.done(blockIdx.x, state);
}

// Folds each of B samples of N elements. The order of the sum depends only on B, N, `vec` and the GPU.
template <int V, class Op>
void fold(const Op& op, int64_t B, int64_t N, bool vec) {
  if (B == 0) return;
  const bool packed = vec && (B == 1 || N % V == 0);
  const int64_t packs = packed ? N / V : N, sms = gpu().sms,
                wanted = ceil_div(B * ceil_div(packs, kFoldPacks * kThreads), sms);
  // Equally many blocks per processor, 8 at most; shares begin at multiples of 8 packs. A sample that one block loads
  // at once is one part.
  const int64_t most = packs > kFoldPacks * kThreads ? ceil_div((wanted < 8 ? wanted : 8) * sms, B) : 1;
  const int64_t share = packs > 0 ? ceil_div(ceil_div(packs, most), 8) * 8 : 8,
                parts = packs > 0 ? ceil_div(packs, share) : 1;
  const Workspace partial(parts > 1 ? (size_t)(B * parts * Op::K) * sizeof(double) : 0);
  double* p = partial.as<double>();
  queue_kernel(packed ? fold_packs<V, Op> : fold_packs<1, Op>, grid_size(B * parts), kThreads, 0, op, p, N, share,
               (unsigned)parts);
  if (parts > 1) queue_kernel(fold_parts<Op>, grid_size(B), kThreads, 0, op, p, (unsigned)parts);
}

}  // namespace rcm
