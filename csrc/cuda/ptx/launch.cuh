// Programmatic dependent launch (sm_90): a kernel may start before its predecessor has finished. Source: PTX ISA 8.x.
#pragma once

namespace rcm {
namespace ptx {

// Waits until all work queued before this kernel has finished and its writes are visible.
__device__ inline void await_queued() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// Lets the next kernel start once every block has called this; by default it starts as blocks of this one end. The
// default is better where the early blocks would occupy the processors unevenly. The next kernel must not read what
// this one still writes through the non-coherent cache (ld.global.nc).
__device__ inline void let_next_start() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;");
#endif
}

}  // namespace ptx
}  // namespace rcm
