// Device memory: the caching allocator, and copies through pinned memory.
#pragma once
#include <cstddef>
#include <functional>

namespace rcm {

void* device_alloc(size_t bytes);
void device_free(void* memory);

// Memory set aside for recorded graphs: while it is in use (null: the common one again) allocations come from it, and what they free
// goes back to it, whenever that happens. Destroying it frees what is still live in it.
struct Idle;
Idle* graph_memory_create();
void graph_memory_use(Idle* idle);
void graph_memory_destroy(Idle* idle);

// Returns once `src` may be reused; the copy itself is queued on the compute stream.
void copy_to_device(void* dst, const void* src, size_t bytes);
// Writes n bytes from position `at` of what is copied; called by several threads at once.
using Source = std::function<void(size_t at, char* into, size_t n)>;
// Fills device memory from a source that writes straight into pinned slots; returns once the source is no longer needed. A failure of
// the source is thrown on the calling thread.
void fill_device(void* dst, size_t bytes, const Source& source);
// Waits for queued work and for the bytes.
void copy_to_host(void* dst, const void* src, size_t bytes);

}  // namespace rcm
