#include "matmul.cuh"

#include <algorithm>
#include <map>
#include <mutex>
#include <tuple>

#include "cuda/vendor/cublaslt.h"
#include "high_low.cuh"

namespace rcm {
namespace {

// ---- cuBLASLt -----------------------------------------------------------------------------------------------------
// Row-major D = A B is column-major D^T = B^T A^T: cuBLASLt's A is our b, and its M is our N.
using Key = std::tuple<int64_t, int64_t, int64_t, int32_t, int32_t, bool, bool, bool, int32_t, uint32_t, uint32_t>;

struct Plan {
  lt::MatmulDesc desc = nullptr;
  lt::Layout a = nullptr, b = nullptr, d = nullptr;
  lt::Algo algo;
  size_t workspace = 0;
  bool usable = false;
};

struct Plans {
  std::mutex lock;
  std::map<Key, Plan> known;
};
Plans& plans() {
  static Plans* p = new Plans;
  return *p;
}

int32_t lt_type(int32_t dtype) {
  switch (dtype) {
    case RCM_F32: return lt::kR32F;
    case RCM_F64: return lt::kR64F;
    case RCM_F16: return lt::kR16F;
    default: return lt::kR16BF;
  }
}

uint32_t alignment(const void* p) {
  const uintptr_t v = reinterpret_cast<uintptr_t>(p);
  uint32_t bytes = 16;
  while (bytes > 2 && v % bytes != 0) bytes /= 2;
  return bytes;
}

void lt_check(int32_t status, const char* what) {
  if (status != 0) fail(RCM_E_BACKEND, "cuBLASLt: %s gave status %d", what, status);
}

constexpr size_t kMaxWorkspace = (size_t)32 << 20;

Plan make_plan(const lt::Library& l, const Product& p, int32_t epilogue, uint32_t align_in, uint32_t align_out) {
  Plan plan;
  const bool doubles = p.d_dtype == RCM_F64;
  lt_check(l.desc_create(&plan.desc, doubles ? lt::kCompute64F : lt::kCompute32F, doubles ? lt::kR64F : lt::kR32F),
           "descriptor");
  const int32_t trans_a = p.b.transposed, trans_b = p.a.transposed;
  lt_check(l.desc_set(plan.desc, lt::kTransA, &trans_a, sizeof trans_a), "transA");
  lt_check(l.desc_set(plan.desc, lt::kTransB, &trans_b, sizeof trans_b), "transB");
  lt_check(l.desc_set(plan.desc, lt::kEpilogue, &epilogue, sizeof epilogue), "epilogue");
  if (p.gelu_input) {
    lt_check(l.desc_set(plan.desc, lt::kAuxLd, &p.N, sizeof p.N), "aux ld");
    lt_check(l.desc_set(plan.desc, lt::kAuxPointer, &p.gelu_input, sizeof p.gelu_input), "aux");
  }
  if (p.bias) lt_check(l.desc_set(plan.desc, lt::kBiasPointer, &p.bias, sizeof p.bias), "bias");
  const auto layout = [&](lt::Layout* out, int32_t dtype, int64_t rows, int64_t cols) {
    lt_check(l.layout_create(out, lt_type(dtype), (uint64_t)rows, (uint64_t)cols, rows), "layout");
  };
  trans_a ? layout(&plan.a, p.b.dtype, p.K, p.N) : layout(&plan.a, p.b.dtype, p.N, p.K);
  trans_b ? layout(&plan.b, p.a.dtype, p.M, p.K) : layout(&plan.b, p.a.dtype, p.K, p.M);
  layout(&plan.d, p.d_dtype, p.N, p.M);
  lt::Preference preference = nullptr;
  lt_check(l.preference_create(&preference), "preference");
  lt_check(l.preference_set(preference, lt::kMaxWorkspace, &kMaxWorkspace, sizeof kMaxWorkspace), "workspace");
  for (int32_t attribute : {lt::kAlignA, lt::kAlignB})
    lt_check(l.preference_set(preference, attribute, &align_in, sizeof align_in), "alignment");
  for (int32_t attribute : {lt::kAlignC, lt::kAlignD})
    lt_check(l.preference_set(preference, attribute, &align_out, sizeof align_out), "alignment");
  lt::Heuristic best;
  int found = 0;
  const int32_t status = l.heuristic(l.handle, plan.desc, plan.a, plan.b, plan.d, plan.d, preference, 1, &best, &found);
  l.preference_destroy(preference);
  if (status == 0 && found > 0 && best.state == 0) {
    plan.algo = best.algo;
    plan.workspace = best.workspace;
    plan.usable = true;
  }
  return plan;
}

// Returns false when cuBLASLt is absent or has no kernel for the case.
bool lt_matmul(const Product& p) {
  const lt::Library& l = lt::library();
  if (!l.handle) return false;
  const int32_t epilogue = p.gelu_input ? (p.bias ? lt::kGeluAuxBias : lt::kGeluAux)
                           : p.bias     ? lt::kBias
                                        : lt::kDefault;
  const uint32_t align_in = std::min(alignment(p.a.data), alignment(p.b.data)), align_out = alignment(p.d);
  const Key key{p.M,          p.N,      p.K,      p.a.dtype, p.d_dtype, p.a.transposed, p.b.transposed,
                p.accumulate, epilogue, align_in, align_out};
  Plans& cache = plans();
  std::lock_guard<std::mutex> hold(cache.lock);  // the cached descriptor holds this call's pointers
  auto at = cache.known.find(key);
  if (at == cache.known.end()) at = cache.known.emplace(key, make_plan(l, p, epilogue, align_in, align_out)).first;
  Plan& plan = at->second;
  if (!plan.usable) return false;
  if (p.bias) lt_check(l.desc_set(plan.desc, lt::kBiasPointer, &p.bias, sizeof p.bias), "bias");
  if (p.gelu_input) lt_check(l.desc_set(plan.desc, lt::kAuxPointer, &p.gelu_input, sizeof p.gelu_input), "aux");
  Workspace workspace(plan.workspace);
  const float one = 1, beta = p.accumulate ? 1 : 0;
  const double one64 = 1, beta64 = beta;
  const bool doubles = p.d_dtype == RCM_F64;
  lt_check(l.matmul(l.handle, plan.desc, doubles ? (const void*)&one64 : &one, p.b.data, plan.a, p.a.data, plan.b,
                    doubles ? (const void*)&beta64 : &beta, p.d, plan.d, p.d, plan.d, &plan.algo, workspace.as<void>(),
                    plan.workspace, stream()),
           "matmul");
  return true;
}

// ---- built-in -----------------------------------------------------------------------------------------------------
constexpr int kTile = 64, kDepth = 16, kPer = 4;

// Any dtypes and sizes. Tile: 64 x 64, 16 deep; 256 threads compute 4 x 4 values each.
template <class C>
__global__ void __launch_bounds__(256) matmul_kernel(Product p) {
  await_queued();
  __shared__ C as[kDepth][kTile + 4], bs[kDepth][kTile + 4];
  const int64_t m0 = (int64_t)blockIdx.y * kTile, n0 = (int64_t)blockIdx.x * kTile;
  const int t = threadIdx.x, tx = t % 16, ty = t / 16;
  C sum[kPer][kPer] = {};
  for (int64_t k0 = 0; k0 < p.K; k0 += kDepth) {
    for (int i = t; i < kTile * kDepth; i += 256) {
      // The fastest index follows memory order.
      const int ar = p.a.transposed ? i % kTile : i / kDepth, ak = p.a.transposed ? i / kTile : i % kDepth;
      const int64_t m = m0 + ar, ka = k0 + ak;
      as[ak][ar] =
          m < p.M && ka < p.K ? load_any<C>(p.a.data, p.a.transposed ? ka * p.M + m : m * p.K + ka, p.a.dtype) : (C)0;
      const int br = p.b.transposed ? i / kDepth : i % kTile, bk = p.b.transposed ? i % kDepth : i / kTile;
      const int64_t n = n0 + br, kb = k0 + bk;
      bs[bk][br] =
          n < p.N && kb < p.K ? load_any<C>(p.b.data, p.b.transposed ? n * p.K + kb : kb * p.N + n, p.b.dtype) : (C)0;
    }
    __syncthreads();
#pragma unroll
    for (int k = 0; k < kDepth; ++k) {
      C a[kPer], b[kPer];
#pragma unroll
      for (int i = 0; i < kPer; ++i) a[i] = as[k][ty * kPer + i], b[i] = bs[k][tx * kPer + i];
#pragma unroll
      for (int i = 0; i < kPer; ++i)
#pragma unroll
        for (int j = 0; j < kPer; ++j) sum[i][j] += a[i] * b[j];
    }
    __syncthreads();
  }
#pragma unroll
  for (int i = 0; i < kPer; ++i)
#pragma unroll
    for (int j = 0; j < kPer; ++j) {
      const int64_t m = m0 + ty * kPer + i, n = n0 + tx * kPer + j;
      if (m >= p.M || n >= p.N) continue;
      C v = sum[i][j];
      if (p.bias) v += load_any<C>(p.bias, n, p.bias_dtype);
      if (p.accumulate) v += load_any<C>(p.d, m * p.N + n, p.d_dtype);
      store_any<C>(p.d, m * p.N + n, p.d_dtype, v);
    }
}

void builtin_matmul(const Product& p) {
  const int64_t rows = ceil_div(p.M, kTile), cols = ceil_div(p.N, kTile);
  if (rows > 65535 || cols > INT32_MAX) fail(RCM_E_SHAPE, "the built-in matmul takes up to 4 million rows");
  const dim3 grid((unsigned)cols, (unsigned)rows);
  if (p.d_dtype == RCM_F64) queue_kernel(matmul_kernel<double>, grid, 256, 0, p);
  else queue_kernel(matmul_kernel<float>, grid, 256, 0, p);
}

// ---- column sums --------------------------------------------------------------------------------------------------
constexpr int kSumRows = 256;

template <class T>
__global__ void __launch_bounds__(256) column_sums_kernel(const T* x, compute_t<T>* partial, int64_t M, int64_t N) {
  await_queued();
  using C = compute_t<T>;
  const int64_t j = (int64_t)blockIdx.x * 32 + threadIdx.x % 32;
  const int64_t from = (int64_t)blockIdx.y * kSumRows, to = min(M, from + kSumRows);
  __shared__ C part[8][33];
  C sum = 0;
  if (j < N) {
#pragma unroll 4
    for (int64_t i = from + threadIdx.x / 32; i < to; i += 8) sum += load_as(x[i * N + j]);
  }
  part[threadIdx.x / 32][threadIdx.x % 32] = sum;
  __syncthreads();
  if (threadIdx.x < 32 && j < N) {
    C total = 0;
#pragma unroll
    for (int w = 0; w < 8; ++w) total += part[w][threadIdx.x];
    partial[blockIdx.y * N + j] = total;
  }
}

// Four columns per thread, so that a warp reads contiguous lines.
template <class T>
__global__ void __launch_bounds__(256) column_sums_pack_kernel(const T* x, float* partial, int64_t M, int64_t N) {
  await_queued();
  constexpr int V = 4;
  const int64_t j = ((int64_t)blockIdx.x * 32 + threadIdx.x % 32) * V;
  const int64_t from = (int64_t)blockIdx.y * kSumRows, to = min(M, from + kSumRows);
  __shared__ float part[8][32 * V + 4];
  float sum[V] = {};
  if (j < N) {
#pragma unroll 8
    for (int64_t i = from + threadIdx.x / 32; i < to; i += 8) {
      float v[V];
      load_pack<V>(x + i * N + j, v);
#pragma unroll
      for (int e = 0; e < V; ++e) sum[e] += v[e];
    }
  }
#pragma unroll
  for (int e = 0; e < V; ++e) part[threadIdx.x / 32][threadIdx.x % 32 * V + e] = sum[e];
  __syncthreads();
  const int64_t column = (int64_t)blockIdx.x * 32 * V + threadIdx.x;
  if (threadIdx.x < 32 * V && column < N) {
    float total = 0;
#pragma unroll
    for (int w = 0; w < 8; ++w) total += part[w][threadIdx.x];
    partial[blockIdx.y * N + column] = total;
  }
}

template <class C>
__global__ void add_partials_kernel(const C* partial, C* sums, int64_t parts, int64_t N) {
  await_queued();
  const int64_t j = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
  if (j >= N) return;
  C total = 0;
  for (int64_t p = 0; p < parts; ++p) total += partial[p * N + j];
  sums[j] += total;
}

__global__ void cast_kernel(const void* from, int32_t from_dtype, void* to, int32_t to_dtype, int64_t n) {
  await_queued();
  for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += (int64_t)gridDim.x * blockDim.x) {
    store_any<float>(to, i, to_dtype, load_any<float>(from, i, from_dtype));
  }
}

void convert(const void* from, int32_t from_dtype, void* to, int32_t to_dtype, int64_t n) {
  if (n > 0)
    queue_kernel(cast_kernel, (unsigned)std::min<int64_t>(ceil_div(n, 256), 4096), 256, 0, from, from_dtype, to,
                 to_dtype, n);
}

// A copy of an operand in f32, for products whose dtypes cuBLASLt does not combine (it wants equal dtypes, and d in
// that or f32).
struct Converted {
  Workspace memory;
  Operand operand;
  Converted(const Operand& o, int64_t n) : memory((size_t)n * 4), operand{memory.as<void>(), RCM_F32, o.transposed} {
    convert(o.data, o.dtype, memory.as<void>(), RCM_F32, n);
  }
};

struct Contiguous {
  __device__ int64_t operator()(int64_t i) const { return i; }
};

// An f32 factor as two bf16 parts; a bf16 factor is its own high part and has no low part.
struct HighLow {
  Workspace memory;
  Operand high, low;
  HighLow(const Operand& o, int64_t n)
      : memory(o.dtype == RCM_F32 ? (size_t)n * 4 + 256 : 0), high(o), low{nullptr, RCM_BF16, o.transposed} {
    if (o.dtype != RCM_F32) return;
    bf16 *top = memory.as<bf16>(), *rest = top + ceil_div(n, 64) * 64;
    queue_high_low(static_cast<const float*>(o.data), top, rest, Contiguous{}, n);
    high = {top, RCM_BF16, o.transposed};
    low.data = rest;
  }
};

bool split_offered(const Product& p) {
  const auto fits = [](int32_t dtype) { return dtype == RCM_F32 || dtype == RCM_BF16; };
  return split_products() && p.d_dtype == RCM_F32 && fits(p.a.dtype) && fits(p.b.dtype) &&
         (p.a.dtype == RCM_F32 || p.b.dtype == RCM_F32);
}

void split_matmul(const Product& p) {
  const HighLow a(p.a, p.M * p.K), b(p.b, p.K * p.N);
  Product q = p;
  q.a = a.high;
  q.b = b.high;
  matmul(q);
  q.bias = nullptr;
  q.accumulate = true;
  if (a.low.data) {
    q.a = a.low;
    matmul(q);
  }
  if (b.low.data) {
    q.a = a.high;
    q.b = b.low;
    matmul(q);
  }
}

}  // namespace

bool matmul_gelu(const Product& p) {
  const bool offered = p.N % 8 == 0 && p.K > 0 && p.a.dtype == p.b.dtype && p.a.dtype == p.d_dtype &&
                       (p.d_dtype == RCM_BF16 || p.d_dtype == RCM_F16) && (!p.bias || p.bias_dtype == p.d_dtype);
  return offered && lt_matmul(p);
}

void matmul(const Product& p) {
  if (p.M == 0 || p.N == 0) return;
  if (p.K == 0 || !lt::library().handle) return builtin_matmul(p);
  if (split_offered(p)) return split_matmul(p);
  if (p.a.dtype != p.b.dtype) {
    if (p.a.dtype != RCM_F32) {
      const Converted a(p.a, p.M * p.K);
      Product q = p;
      q.a = a.operand;
      return matmul(q);
    }
    const Converted b(p.b, p.K * p.N);
    Product q = p;
    q.b = b.operand;
    return matmul(q);
  }
  if (p.bias && p.bias_dtype != p.d_dtype) {
    Workspace bias((size_t)p.N * 4);
    convert(p.bias, p.bias_dtype, bias.as<void>(), p.d_dtype, p.N);
    Product q = p;
    q.bias = bias.as<void>();
    q.bias_dtype = p.d_dtype;
    return matmul(q);
  }
  if (p.d_dtype != p.a.dtype && p.d_dtype != RCM_F32) {
    // cuBLASLt does not write this dtype from these operands: go through f32.
    if (p.accumulate) return builtin_matmul(p);
    Workspace wide((size_t)(p.M * p.N) * 4);
    Product q = p;
    q.d = wide.as<void>();
    q.d_dtype = RCM_F32;
    matmul(q);
    return convert(wide.as<void>(), RCM_F32, p.d, p.d_dtype, p.M * p.N);
  }
  if (lt_matmul(p)) return;
  builtin_matmul(p);
}

void add_column_sums(const void* x, int32_t dtype, void* sums, int64_t M, int64_t N) {
  if (M == 0 || N == 0) return;
  const int64_t parts = ceil_div(M, kSumRows);
  if (parts > 65535) fail(RCM_E_SHAPE, "column sums take up to 16 million rows");
  with_dtype(dtype, "x", [&](auto t) {
    using T = decltype(t);
    using C = compute_t<T>;
    Workspace partial((size_t)(parts * N) * sizeof(C));
    const T* in = static_cast<const T*>(x);
    bool paired = false;
    if constexpr (!std::is_same<T, double>::value) {
      if (N % 4 == 0 && aligned(x, sizeof(T) * 4)) {
        paired = true;
        queue_kernel(column_sums_pack_kernel<T>, dim3((unsigned)ceil_div(N, 128), (unsigned)parts), 256, 0, in,
                     partial.as<float>(), M, N);
      }
    }
    if (!paired)
      queue_kernel(column_sums_kernel<T>, dim3((unsigned)ceil_div(N, 32), (unsigned)parts), 256, 0, in, partial.as<C>(),
                   M, N);
    queue_kernel(add_partials_kernel<C>, (unsigned)ceil_div(N, 128), 128, 0, partial.as<C>(), static_cast<C*>(sums),
                 parts, N);
  });
}

}  // namespace rcm
