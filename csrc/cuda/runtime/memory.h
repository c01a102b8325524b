// The caching allocator of device memory, and copies through pinned memory.
#pragma once
#include <cstddef>
#include <functional>

namespace rcm {

void* device_alloc(size_t bytes);
void device_free(void* memory);

// Memory reserved for recorded graphs. While it is in use (null: the common pool) allocations are served from it, and
// whatever they free returns to it, even later. Destroying it frees the blocks that are still live in it.
struct FreeBlocks;
FreeBlocks* graph_memory_create();
void graph_memory_use(FreeBlocks* free_blocks);
void graph_memory_destroy(FreeBlocks* free_blocks);

// Returns once `src` may be reused; the copy to the device is queued on the compute stream.
void copy_to_device(void* dst, const void* src, size_t bytes);
// Writes n bytes from position `at` of the data to `into`; called by several threads at once.
using Source = std::function<void(size_t at, char* into, size_t n)>;
// Fills device memory from a source that writes straight into pinned slots; returns once the source is no longer
// needed. Rethrows the source's failure on the calling thread.
void fill_device(void* dst, size_t bytes, const Source& source);
// Waits for queued work and for the copy.
void copy_to_host(void* dst, const void* src, size_t bytes);

}  // namespace rcm
