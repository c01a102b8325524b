// The last step of column sums: every block leaves its partial sums in a slot, and the slots are added in a fixed
// order.
#pragma once
#include "cuda/runtime/common.cuh"

namespace rcm {

inline unsigned grid_of(int64_t blocks) {
  if (blocks > 0x7fffffff) fail(RCM_E_SHAPE, "rows: too many for one launch (%lld blocks)", (long long)blocks);
  return (unsigned)blocks;
}

// Few columns per block, so that even 1,536 columns keep every processor busy; 8 floats are one sector of memory.
constexpr int kSlotColumns = 8, kSlotRows = 128;

// Adds the sums over slots of partial [samples][slots][columns]: columns below `width` go to out0, the others to out1.
template <class C>
__global__ void __launch_bounds__(kSlotColumns* kSlotRows)
    sum_slots(const C* partial, int64_t slots, int64_t width, int64_t columns, C* out0, C* out1, int64_t stride) {
  await_queued();
  __shared__ C part[kSlotRows][kSlotColumns + 1];
  const int64_t tiles = (columns + kSlotColumns - 1) / kSlotColumns, sample = blockIdx.x / tiles,
                first = blockIdx.x % tiles * kSlotColumns;
  const int64_t column = first + threadIdx.x;
  C sum = 0;
  if (column < columns && (column < width ? out0 : out1) != nullptr) {
    const C* p = partial + sample * slots * columns + column;
#pragma unroll 4
    for (int64_t s = threadIdx.y; s < slots; s += kSlotRows) sum += p[s * columns];
  }
  part[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  const int thread = (int)(threadIdx.y * kSlotColumns + threadIdx.x), warp = thread / 32, lane = thread % 32;
  if (warp >= kSlotColumns) return;
  // One warp per column.
  C total = 0;
#pragma unroll
  for (int s = 0; s < kSlotRows; s += 32) total += part[s + lane][warp];
  total = warp_sum(total);
  const int64_t c = first + warp;
  C* out = c < width ? out0 : out1;
  if (lane == 0 && c < columns && out != nullptr) out[sample * stride + (c < width ? c : c - width)] += total;
}

template <class C>
void add_slots(const C* partial, int64_t samples, int64_t slots, int64_t width, int outputs, C* out0, C* out1,
               int64_t stride) {
  const int64_t columns = width * outputs;
  queue_kernel(sum_slots<C>, grid_of(samples * ceil_div(columns, kSlotColumns)), dim3(kSlotColumns, kSlotRows), 0,
               partial, slots, width, columns, out0, out1, stride);
}

}  // namespace rcm
