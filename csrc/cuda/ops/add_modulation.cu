#include "elementwise.cuh"
#include "shared/ops/add_modulation.h"

namespace rcm::add_modulation {
namespace {

unsigned grid_for(int64_t n) { return grid_size(ceil_div(n, kThreads)); }

// One thread per element of [S,D]; it walks a range of samples and reads p once.
template <class C, bool Jvp>
__global__ void __launch_bounds__(kThreads)
    modulate(const void* p, int32_t p_dtype, const C* e, const C* e_dot, C* y, C* y_dot, int64_t B, int64_t S,
             int64_t Se, int64_t D, unsigned blocks) {
  await_queued();
  const int64_t i = (int64_t)(blockIdx.x % blocks) * kThreads + threadIdx.x, width = S * D;
  if (i >= width) return;
  const C w = load_any<C>(p, i, p_dtype);
  const int64_t column = Se == 1 ? i % D : i;
  for (int64_t b = blockIdx.x / blocks; b < B; b += gridDim.x / blocks) {
    y[b * width + i] = w + e[b * Se * D + column];
    if constexpr (Jvp) y_dot[b * width + i] = e_dot[b * Se * D + column];
  }
}

// p_bar += sum of y_bar over samples.
template <class C>
__global__ void __launch_bounds__(kThreads) param_back(const C* y_bar, C* p_bar, int64_t B, int64_t width) {
  await_queued();
  const int64_t i = (int64_t)blockIdx.x * kThreads + threadIdx.x;
  if (i >= width) return;
  double sum = 0;
#pragma unroll 8
  for (int64_t b = 0; b < B; ++b) sum += (double)y_bar[b * width + i];
  p_bar[i] += (C)sum;
}

// e_bar = sum of y_bar over the S slots.
template <class C>
__global__ void __launch_bounds__(kThreads) slots_back(const C* y_bar, C* e_bar, int64_t B, int64_t S, int64_t D) {
  await_queued();
  const int64_t k = (int64_t)blockIdx.x * kThreads + threadIdx.x;
  if (k >= B * D) return;
  const C* bar = y_bar + k / D * S * D + k % D;
  C sum = 0;
#pragma unroll 8
  for (int64_t s = 0; s < S; ++s) sum += bar[s * D];
  e_bar[k] = sum;
}

template <class C, bool Jvp>
void run(const Forward& a, const Sizes& z) {
  if (z.B == 0 || z.S == 0 || z.D == 0) return;
  const int64_t blocks = ceil_div(z.S * z.D, kThreads), room = (int64_t)gpu().sms * 16 / blocks;
  const int64_t ranges = room < 1 ? 1 : room < z.B ? room : z.B;
  const C *e = static_cast<const C*>(a.e), *e_dot = static_cast<const C*>(a.e_dot);
  queue_kernel(modulate<C, Jvp>, grid_size(blocks * ranges), kThreads, 0, a.p, z.p_dtype, e, e_dot,
               static_cast<C*>(a.y), static_cast<C*>(a.y_dot), z.B, z.S, z.Se, z.D, (unsigned)blocks);
}

template <class C>
void run_backward(const Backward& a, const Sizes& z) {
  if (z.B == 0 || z.D == 0) return;
  const C* y_bar = static_cast<const C*>(a.y_bar);
  C *p_bar = static_cast<C*>(a.p_bar), *e_bar = static_cast<C*>(a.e_bar);
  if (p_bar && z.S > 0) queue_kernel(param_back<C>, grid_for(z.S * z.D), kThreads, 0, y_bar, p_bar, z.B, z.S * z.D);
  if (e_bar == nullptr) return;
  if (z.Se != z.S) {
    queue_kernel(slots_back<C>, grid_for(z.B * z.D), kThreads, 0, y_bar, e_bar, z.B, z.S, z.D);
  } else if (z.S > 0 && e_bar != y_bar) {
    const size_t bytes = (size_t)(z.B * z.S * z.D) * sizeof(C);
    cuda_check(cudaMemcpyAsync(e_bar, y_bar, bytes, cudaMemcpyDeviceToDevice, stream()), "copy");
  }
}

}  // namespace

void forward(const Forward& a, const Sizes& z) {
  const bool doubles = z.dtype == RCM_F64;
  if (a.y_dot) doubles ? run<double, true>(a, z) : run<float, true>(a, z);
  else doubles ? run<double, false>(a, z) : run<float, false>(a, z);
}

void backward(const Backward& a, const Sizes& z) {
  if (z.dtype == RCM_F64) run_backward<double>(a, z);
  else run_backward<float>(a, z);
}

}  // namespace rcm::add_modulation
