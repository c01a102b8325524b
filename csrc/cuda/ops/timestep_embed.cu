#include "elementwise.cuh"
#include "shared/ops/timestep_embed.h"

namespace rcm::timestep_embed {
namespace {

__device__ inline double frequency(int64_t i, int64_t half) { return pow(10000.0, -(double)i / (double)half); }

template <class C, bool Jvp>
__global__ void __launch_bounds__(kThreads)
    embed(const double* t, const double* t_dot, C* y, C* y_dot, int64_t B, int64_t half) {
  await_queued();
  const int64_t k = (int64_t)blockIdx.x * kThreads + threadIdx.x;
  if (k >= B * half) return;
  const int64_t b = k / half, i = k % half, at = b * 2 * half + i;
  const double f = frequency(i, half);
  double sine, cosine;
  sincos(mul_exact(t[b], f), &sine, &cosine);
  y[at] = (C)cosine;
  y[at + half] = (C)sine;
  if constexpr (Jvp) {
    y_dot[at] = (C)(-sine * f * t_dot[b]);
    y_dot[at + half] = (C)(cosine * f * t_dot[b]);
  }
}

// One block per sample.
template <class C>
__global__ void __launch_bounds__(kThreads) embed_back(const double* t, const C* y_bar, double* t_bar, int64_t half) {
  await_queued();
  __shared__ double shared[32];
  const int64_t b = blockIdx.x;
  const C* bar = y_bar + b * 2 * half;
  double sum[1] = {0};
  for (int64_t i = threadIdx.x; i < half; i += kThreads) {
    const double f = frequency(i, half);
    double sine, cosine;
    sincos(mul_exact(t[b], f), &sine, &cosine);
    sum[0] += f * (cosine * (double)bar[half + i] - sine * (double)bar[i]);
  }
  block_sum(sum, shared);
  if (threadIdx.x == 0) t_bar[b] = sum[0];
}

template <class C, bool Jvp>
void launch(const Forward& a, const Sizes& z) {
  if (z.B == 0) return;
  const int64_t half = z.N / 2;
  queue_kernel(embed<C, Jvp>, grid_size(ceil_div(z.B * half, kThreads)), kThreads, 0, a.t, a.t_dot,
               static_cast<C*>(a.y), static_cast<C*>(a.y_dot), z.B, half);
}

template <class C>
void launch_back(const Backward& a, const Sizes& z) {
  if (z.B == 0) return;
  queue_kernel(embed_back<C>, grid_size(z.B), kThreads, 0, a.t, static_cast<const C*>(a.y_bar), a.t_bar, z.N / 2);
}

}  // namespace

void forward(const Forward& a, const Sizes& z) {
  const bool doubles = z.dtype == RCM_F64;
  if (a.y_dot) doubles ? launch<double, true>(a, z) : launch<float, true>(a, z);
  else doubles ? launch<double, false>(a, z) : launch<float, false>(a, z);
}

void backward(const Backward& a, const Sizes& z) {
  if (z.dtype == RCM_F64) launch_back<double>(a, z);
  else launch_back<float>(a, z);
}

}  // namespace rcm::timestep_embed
