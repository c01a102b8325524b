#include "elementwise.cuh"

using namespace rcm;

namespace {

void check_modulation(int64_t B, int64_t S, int64_t Se, int64_t D, int32_t p_dtype, int32_t dtype) {
  size_at_least(B, 0, "B");
  size_at_least(S, 0, "S");
  size_at_least(D, 0, "D");
  if (Se != 1 && Se != S) fail(RCM_E_SHAPE, "Se: want 1 or %lld, got %lld", (long long)S, (long long)Se);
  if (dtype != RCM_F32 && dtype != RCM_F64) fail(RCM_E_DTYPE, "e: want f32 or f64, got code %d", dtype);
  same_kind(p_dtype, dtype == RCM_F64, "p");
}

unsigned grid_for(int64_t n) { return grid_size(ceil_div(n, kThreads)); }

// One thread an element of [S,D], over a range of samples: p is read once.
template <class C, bool Jvp>
__global__ void __launch_bounds__(kThreads) modulate(const void* p, int32_t p_dtype, const C* e, const C* e_dot, C* y, C* y_dot, int64_t B, int64_t S,
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

// p_bar += the sum over samples.
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

// e_bar = the sum over slots.
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
void forward(const void* p, const void* e, const void* e_dot, void* y, void* y_dot, int64_t B, int64_t S, int64_t Se, int64_t D, int32_t p_dtype) {
  if (B == 0 || S == 0 || D == 0) return;
  const int64_t blocks = ceil_div(S * D, kThreads), room = (int64_t)gpu().sms * 16 / blocks, ranges = room < 1 ? 1 : room < B ? room : B;
  queue_kernel(modulate<C, Jvp>, grid_size(blocks * ranges), kThreads, 0, p, p_dtype, static_cast<const C*>(e), static_cast<const C*>(e_dot),
               static_cast<C*>(y), static_cast<C*>(y_dot), B, S, Se, D, (unsigned)blocks);
}

template <class C>
void backward(const void* y_bar, void* p_bar, void* e_bar, int64_t B, int64_t S, int64_t Se, int64_t D) {
  if (B == 0 || D == 0) return;
  const C* bar = static_cast<const C*>(y_bar);
  if (p_bar && S > 0) queue_kernel(param_back<C>, grid_for(S * D), kThreads, 0, bar, static_cast<C*>(p_bar), B, S * D);
  if (e_bar == nullptr) return;
  if (Se != S) {
    queue_kernel(slots_back<C>, grid_for(B * D), kThreads, 0, bar, static_cast<C*>(e_bar), B, S, D);
  } else if (S > 0 && e_bar != y_bar) {
    check(cudaMemcpyAsync(e_bar, y_bar, (size_t)(B * S * D) * sizeof(C), cudaMemcpyDeviceToDevice, stream()), "copy");
  }
}

}  // namespace

rcm_status rcm_add_modulation_fwd(const void* p, const void* e, void* y, int64_t B, int64_t S, int64_t Se, int64_t D, int32_t p_dtype, int32_t dtype) {
  return gpu_call("add_modulation_fwd", [&] {
    need(p, "p");
    need(e, "e");
    need(y, "y");
    check_modulation(B, S, Se, D, p_dtype, dtype);
    if (dtype == RCM_F64) forward<double, false>(p, e, nullptr, y, nullptr, B, S, Se, D, p_dtype);
    else forward<float, false>(p, e, nullptr, y, nullptr, B, S, Se, D, p_dtype);
  });
}

rcm_status rcm_add_modulation_jvp(const void* p, const void* e, const void* e_dot, void* y, void* y_dot, int64_t B, int64_t S, int64_t Se, int64_t D,
                                  int32_t p_dtype, int32_t dtype) {
  return gpu_call("add_modulation_jvp", [&] {
    need(p, "p");
    need(e, "e");
    need(e_dot, "e_dot");
    need(y, "y");
    need(y_dot, "y_dot");
    check_modulation(B, S, Se, D, p_dtype, dtype);
    if (dtype == RCM_F64) forward<double, true>(p, e, e_dot, y, y_dot, B, S, Se, D, p_dtype);
    else forward<float, true>(p, e, e_dot, y, y_dot, B, S, Se, D, p_dtype);
  });
}

rcm_status rcm_add_modulation_vjp(const void* y_bar, void* p_bar, void* e_bar, int64_t B, int64_t S, int64_t Se, int64_t D, int32_t p_dtype,
                                  int32_t dtype) {
  return gpu_call("add_modulation_vjp", [&] {
    need(y_bar, "y_bar");
    check_modulation(B, S, Se, D, p_dtype, dtype);
    if (dtype == RCM_F64) backward<double>(y_bar, p_bar, e_bar, B, S, Se, D);
    else backward<float>(y_bar, p_bar, e_bar, B, S, Se, D);
  });
}
