// f32 as the sum of two bf16 numbers, so that the tensor cores can multiply it: high + low keeps 16 bits of the
// mantissa.
#pragma once
#include "cuda/runtime/common.cuh"

namespace rcm {

// `offset(i)` is where element i of the dense outputs is found in x.
template <class Offset>
__global__ void __launch_bounds__(256)
    high_low_kernel(const float* x, bf16* high, bf16* low, Offset offset, int64_t n) {
  await_queued();
  for (int64_t i = (int64_t)blockIdx.x * 256 + threadIdx.x; i < n; i += (int64_t)gridDim.x * 256) {
    const float v = x[offset(i)];
    const bf16 top = __float2bfloat16_rn(v);
    high[i] = top;
    low[i] = __float2bfloat16_rn(v - __bfloat162float(top));
  }
}

template <class Offset>
void queue_high_low(const float* x, bf16* high, bf16* low, const Offset& offset, int64_t n) {
  const int64_t blocks = ceil_div(n, 256), most = 16 * gpu().sms;
  queue_kernel(high_low_kernel<Offset>, (unsigned)(blocks < most ? blocks : most), 256, 0, x, high, low, offset, n);
}

}  // namespace rcm
