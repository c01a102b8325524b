#include "elementwise.cuh"

using namespace rcm;

namespace {

__device__ inline double frequency(int64_t i, int64_t half) { return pow(10000.0, -(double)i / (double)half); }

template <class C, bool Jvp>
__global__ void __launch_bounds__(kThreads) embed(const double* t, const double* t_dot, C* y, C* y_dot, int64_t B, int64_t half) {
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

// One block a sample.
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

void check_embed(const void* t, const void* y, int64_t B, int64_t N, int32_t dtype) {
  need(t, "t");
  need(y, "y");
  size_at_least(B, 0, "B");
  if (N < 2 || N % 2 != 0) fail(RCM_E_SHAPE, "N: want an even width, got %lld", (long long)N);
  if (dtype != RCM_F32 && dtype != RCM_F64) fail(RCM_E_DTYPE, "y: want f32 or f64, got code %d", dtype);
}

template <class C, bool Jvp>
void launch(const double* t, const double* t_dot, void* y, void* y_dot, int64_t B, int64_t N) {
  if (B == 0) return;
  const unsigned grid = grid_size(ceil_div(B * (N / 2), kThreads));
  queue_kernel(embed<C, Jvp>, grid, kThreads, 0, t, t_dot, static_cast<C*>(y), static_cast<C*>(y_dot), B, N / 2);
}

}  // namespace

rcm_status rcm_timestep_embed_fwd(const double* t, void* y, int64_t B, int64_t N, int32_t dtype) {
  return gpu_call("timestep_embed_fwd", [&] {
    check_embed(t, y, B, N, dtype);
    if (dtype == RCM_F64) launch<double, false>(t, nullptr, y, nullptr, B, N);
    else launch<float, false>(t, nullptr, y, nullptr, B, N);
  });
}

rcm_status rcm_timestep_embed_jvp(const double* t, const double* t_dot, void* y, void* y_dot, int64_t B, int64_t N, int32_t dtype) {
  return gpu_call("timestep_embed_jvp", [&] {
    check_embed(t, y, B, N, dtype);
    need(t_dot, "t_dot");
    need(y_dot, "y_dot");
    if (dtype == RCM_F64) launch<double, true>(t, t_dot, y, y_dot, B, N);
    else launch<float, true>(t, t_dot, y, y_dot, B, N);
  });
}

rcm_status rcm_timestep_embed_vjp(const double* t, const void* y_bar, double* t_bar, int64_t B, int64_t N, int32_t dtype) {
  return gpu_call("timestep_embed_vjp", [&] {
    check_embed(t, y_bar, B, N, dtype);
    need(t_bar, "t_bar");
    if (B == 0) return;
    if (dtype == RCM_F64) queue_kernel(embed_back<double>, grid_size(B), kThreads, 0, t, static_cast<const double*>(y_bar), t_bar, N / 2);
    else queue_kernel(embed_back<float>, grid_size(B), kThreads, 0, t, static_cast<const float*>(y_bar), t_bar, N / 2);
  });
}
