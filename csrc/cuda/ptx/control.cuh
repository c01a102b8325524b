// Hardware barriers, and values whose origin is hidden from the compiler. Source: PTX ISA.
#pragma once

namespace rcm {
namespace ptx {

// Hardware barrier 1..15 among `threads` threads of a block.
__device__ inline void named_sync(int id, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}
__device__ inline void named_arrive(int id, int threads) {
  asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

// The same value, which the compiler cannot fold into addresses that it would keep in registers across a loop.
__device__ inline int opaque(int i) {
  asm volatile("" : "+r"(i));
  return i;
}
// threadIdx.x, read again: values derived from it are not kept in registers across the loop before.
__device__ inline int reload_thread_index() {
  int thread;
  asm volatile("mov.u32 %0, %%tid.x;" : "=r"(thread));
  return thread;
}

}  // namespace ptx
}  // namespace rcm
