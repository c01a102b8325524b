// Order between kernels that start early (sm_90: programmatic dependent launch). Source: PTX ISA 8.x.
#pragma once

namespace rcm {
namespace ptx {

// Until all that was queued before this kernel is done, its writes visible.
__device__ inline void await_queued() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// The next kernel may start once every block got here. Without it that happens as blocks end: where its blocks would fill up unevenly what this
// kernel leaves free, that is better. What this kernel still writes the next one may not read by way of the non-coherent cache (ld.global.nc).
__device__ inline void let_next_start() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;");
#endif
}

}  // namespace ptx
}  // namespace rcm
