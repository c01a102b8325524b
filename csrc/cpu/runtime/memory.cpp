// Caching allocator: freed blocks are kept in lists by size class; large blocks use huge pages.
#include <sys/mman.h>

#include <map>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "common.h"
#include "shared/memory_counts.h"

namespace rcm {
namespace {

struct Pool {
  std::mutex lock;
  std::unordered_map<void*, size_t> live;
  std::map<size_t, std::vector<void*>> cached;
  MemoryCounts counts;
};

Pool& pool() {
  static Pool* p = new Pool;  // never destroyed: threads may still free at exit
  return *p;
}

constexpr size_t kHuge = (size_t)2 << 20;

// Size classes: multiples of 256 B up to 4 KiB, then eighths of a power of two, so at most 12.5 % is lost.
size_t size_class(size_t bytes) {
  if (bytes <= 4096) return (bytes + 255) & ~(size_t)255;
  size_t step = (size_t)1 << (60 - __builtin_clzll(bytes));
  size_t rounded = (bytes + step - 1) / step * step;
  return bytes >= kHuge ? (rounded + kHuge - 1) / kHuge * kHuge : rounded;
}

void trim(Pool& p) {
  for (auto& [bytes, blocks] : p.cached) {
    for (void* b : blocks) std::free(b);
    p.counts.reserved -= (int64_t)(bytes * blocks.size());
  }
  p.cached.clear();
}

}  // namespace
}  // namespace rcm

using namespace rcm;

rcm_status rcm_alloc(int64_t* out, int64_t bytes) {
  return guard("alloc", [&] {
    need(out, "out");
    size_at_least(bytes, 0, "bytes");
    if (bytes > ((int64_t)1 << 46)) fail(RCM_E_OOM, "want %lld bytes", (long long)bytes);
    size_t size = size_class(bytes == 0 ? 1 : (size_t)bytes);
    Pool& p = pool();
    std::lock_guard<std::mutex> hold(p.lock);
    void* block = nullptr;
    auto found = p.cached.find(size);
    if (found != p.cached.end() && !found->second.empty()) {
      block = found->second.back();
      found->second.pop_back();
    } else {
      const auto take = [&] {
        if (p.counts.may_reserve(size)) block = std::aligned_alloc(size >= kHuge ? kHuge : 256, size);
      };
      if (!p.counts.may_reserve(size)) trim(p);
      take();
      if (block == nullptr) {
        trim(p);
        take();
      }
      if (block == nullptr) {
        fail(RCM_E_OOM, "want %lld bytes; %lld bytes in %zu blocks are held, %lld reserved", (long long)bytes,
             (long long)p.counts.current, p.live.size(), (long long)p.counts.reserved);
      }
      if (size >= kHuge) madvise(block, size, MADV_HUGEPAGE);
      p.counts.reserve(size);
    }
    p.live.emplace(block, size);
    p.counts.use(size);
    *out = (int64_t)(intptr_t)block;
  });
}

rcm_status rcm_free(void* memory) {
  return guard("free", [&] {
    if (memory == nullptr) return;
    Pool& p = pool();
    std::lock_guard<std::mutex> hold(p.lock);
    auto found = p.live.find(memory);
    if (found == p.live.end()) fail(RCM_E_ARG, "memory: not a live block of this library");
    size_t size = found->second;
    p.cached[size].push_back(memory);
    p.live.erase(found);
    p.counts.current -= (int64_t)size;
  });
}

rcm_status rcm_memory_trim(void) {
  return guard("memory_trim", [] {
    Pool& p = pool();
    std::lock_guard<std::mutex> hold(p.lock);
    trim(p);
  });
}

rcm_status rcm_memory_stats(int64_t* out) {
  return guard("memory_stats", [&] {
    need(out, "out");
    Pool& p = pool();
    std::lock_guard<std::mutex> hold(p.lock);
    p.counts.write(out, p.live.size());
  });
}

rcm_status rcm_memory_reset_peak(void) {
  return guard("memory_reset_peak", [] {
    Pool& p = pool();
    std::lock_guard<std::mutex> hold(p.lock);
    p.counts.reset_peak();
  });
}

rcm_status rcm_copy(void* dst, const void* src, int64_t bytes, int32_t kind) {
  return guard("copy", [&] {
    need(dst, "dst");
    need(src, "src");
    size_at_least(bytes, 0, "bytes");
    if (kind < 0 || kind > 2) fail(RCM_E_ARG, "kind: want 0, 1 or 2, got %d", kind);
    parallel_for(bytes, 1 << 20, [&](int64_t from, int64_t to, int) {
      std::memcpy((char*)dst + from, (const char*)src + from, (size_t)(to - from));
    });
  });
}

rcm_status rcm_zero(void* dst, int64_t bytes) {
  return guard("zero", [&] {
    need(dst, "dst");
    size_at_least(bytes, 0, "bytes");
    parallel_for(bytes, 1 << 20,
                 [&](int64_t from, int64_t to, int) { std::memset((char*)dst + from, 0, (size_t)(to - from)); });
  });
}
