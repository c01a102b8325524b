// Device memory: the caching allocator, and copies through pinned memory.
#pragma once
#include <cstddef>

namespace rcm {

void* device_alloc(size_t bytes);
void device_free(void* memory);

// Returns once `src` may be reused; the copy itself is queued on the compute stream.
void copy_to_device(void* dst, const void* src, size_t bytes);
// Waits for queued work and for the bytes.
void copy_to_host(void* dst, const void* src, size_t bytes);

}  // namespace rcm
