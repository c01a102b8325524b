// Descriptors of the bulk copy engine (TMA) for 16-bit tensors.
#pragma once
#include <cuda.h>

#include <cstdint>

namespace rcm {

// A tensor of `rank` axes, the first dense, and the box that one copy moves. Sizes, strides (of axes 1 to rank - 1) and
// the box count elements; `swizzle_bytes` is 32, 64 or 128.
struct BoxedTensor {
  const void* data;
  int32_t dtype;
  int rank;
  const int64_t *sizes, *strides;
  const int* box;
  int swizzle_bytes;
};
// False where the copy engine cannot describe the tensor: alignment, or a stride that is 0 or no multiple of 16 bytes.
bool encode_tensor_map(CUtensorMap* map, const BoxedTensor& t);

}  // namespace rcm
