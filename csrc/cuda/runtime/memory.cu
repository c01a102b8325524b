// Caching allocator, and copies through a ring of pinned slots. Segments from cudaMalloc are split into blocks, and
// neighbouring free blocks are merged again. All work runs on one stream, so a freed block may be reused at once.
#include <algorithm>
#include <atomic>
#include <map>
#include <mutex>
#include <set>
#include <thread>
#include <unordered_map>
#include <vector>

#include "common.cuh"
#include "memory.h"
#include "shared/memory_counts.h"

namespace rcm {
namespace {

constexpr size_t kAlign = 512;
constexpr size_t kSmall = (size_t)1 << 20;  // requests up to this come from small segments
constexpr size_t kSmallSegment = (size_t)8 << 20;
constexpr size_t kLargeSegment = (size_t)32 << 20;  // requests below this share large segments
constexpr size_t kGrain = (size_t)2 << 20;

struct Block {
  char* start;
  size_t bytes;
  bool free, small;
  Block *before, *after;  // neighbours in the segment
};

struct BySize {
  bool operator()(const Block* a, const Block* b) const {
    return a->bytes != b->bytes ? a->bytes < b->bytes : a->start < b->start;
  }
};

}  // namespace

// Free blocks of one owner: the common pool, or one set of recorded graphs.
struct FreeBlocks {
  std::set<Block*, BySize> blocks[2];  // large, small
};

namespace {

struct Live {
  Block* block;
  FreeBlocks* owner;
};

struct Pool {
  std::mutex lock;
  FreeBlocks common;
  FreeBlocks* now = &common;  // owner that allocations are served from
  std::unordered_map<void*, Live> live;
  MemoryCounts counts;
};

Pool& pool() {
  static Pool* p = new Pool;  // never destroyed: calls may still arrive at exit
  return *p;
}

// Returns wholly free segments to the system; no queued work may still use them.
void release_segments(Pool& p, FreeBlocks& free_blocks) {
  for (auto& set : free_blocks.blocks) {
    for (auto it = set.begin(); it != set.end();) {
      Block* b = *it;
      if (b->before || b->after) {
        ++it;
        continue;
      }
      it = set.erase(it);
      cuda_check(cudaFree(b->start), "cudaFree");
      p.counts.reserved -= (int64_t)b->bytes;
      delete b;
    }
  }
}

void trim(Pool& p) {
  if (p.now != &p.common) fail(RCM_E_OOM, "memory cannot be returned while calls are recorded");
  cuda_check(cudaStreamSynchronize(stream()), "waiting for queued work");
  release_segments(p, p.common);
}

Block* new_segment(Pool& p, size_t bytes, bool small) {
  const size_t size = small                   ? kSmallSegment
                      : bytes < kLargeSegment ? kLargeSegment
                                              : (bytes + kGrain - 1) / kGrain * kGrain;
  for (int attempt = 0; attempt < 2; ++attempt) {
    void* memory = nullptr;
    if (p.counts.may_reserve(size)) {
      const cudaError_t error = cudaMalloc(&memory, size);
      if (error != cudaSuccess) {
        cudaGetLastError();
        if (error != cudaErrorMemoryAllocation) cuda_fail(error, "cudaMalloc");
      }
    }
    if (memory) {
      p.counts.reserve(size);
      return new Block{static_cast<char*>(memory), size, true, small, nullptr, nullptr};
    }
    if (attempt == 0) trim(p);
  }
  size_t free_bytes = 0, total = 0;
  cudaMemGetInfo(&free_bytes, &total);
  fail(RCM_E_OOM, "want %zu bytes; %lld bytes in %zu blocks are held, %lld reserved, %zu of %zu free on the GPU", bytes,
       (long long)p.counts.current, p.live.size(), (long long)p.counts.reserved, free_bytes, total);
}

// Splits the tail off a block when it is large enough to be useful.
void split(FreeBlocks& free_blocks, Block* b, size_t bytes) {
  const size_t rest = b->bytes - bytes;
  if (rest < (b->small ? kAlign : kSmall)) return;
  Block* tail = new Block{b->start + bytes, rest, true, b->small, b, b->after};
  if (b->after) b->after->before = tail;
  b->after = tail;
  b->bytes = bytes;
  free_blocks.blocks[b->small].insert(tail);
}

// Merges `b` with the block after it if that is free.
void merge_next(FreeBlocks& free_blocks, Block* b) {
  Block* next = b->after;
  if (!next || !next->free) return;
  free_blocks.blocks[b->small].erase(next);
  b->bytes += next->bytes;
  b->after = next->after;
  if (b->after) b->after->before = b;
  delete next;
}

}  // namespace

void* device_alloc(size_t wanted) {
  gpu();
  if (wanted > ((size_t)1 << 46)) fail(RCM_E_OOM, "want %zu bytes", wanted);
  size_t bytes = wanted == 0 ? kAlign : (wanted + kAlign - 1) / kAlign * kAlign;
  const bool small = bytes <= kSmall;
  if (bytes >= kLargeSegment) bytes = (bytes + kGrain - 1) / kGrain * kGrain;
  Pool& p = pool();
  std::lock_guard<std::mutex> hold(p.lock);
  Block key{nullptr, bytes, true, small, nullptr, nullptr};
  auto& free_blocks = p.now->blocks[small];
  auto found = free_blocks.lower_bound(&key);
  Block* b;
  if (found != free_blocks.end()) {
    b = *found;
    free_blocks.erase(found);
  } else {
    b = new_segment(p, bytes, small);
  }
  split(*p.now, b, bytes);
  b->free = false;
  p.live.emplace(b->start, Live{b, p.now});
  p.counts.use(b->bytes);
  return b->start;
}

namespace {

void release(Pool& p, std::unordered_map<void*, Live>::iterator found) {
  auto [b, owner] = found->second;
  p.live.erase(found);
  p.counts.current -= (int64_t)b->bytes;
  b->free = true;
  merge_next(*owner, b);
  if (b->before && b->before->free) {
    b = b->before;
    owner->blocks[b->small].erase(b);
    merge_next(*owner, b);
  }
  owner->blocks[b->small].insert(b);
}

}  // namespace

void device_free(void* memory) {
  if (memory == nullptr) return;
  Pool& p = pool();
  std::lock_guard<std::mutex> hold(p.lock);
  auto found = p.live.find(memory);
  if (found == p.live.end()) fail(RCM_E_ARG, "memory: not a live block of this library");
  release(p, found);
}

FreeBlocks* graph_memory_create() { return new FreeBlocks; }

void graph_memory_use(FreeBlocks* free_blocks) {
  Pool& p = pool();
  std::lock_guard<std::mutex> hold(p.lock);
  p.now = free_blocks ? free_blocks : &p.common;
}

void graph_memory_destroy(FreeBlocks* free_blocks) {
  Pool& p = pool();
  std::lock_guard<std::mutex> hold(p.lock);
  for (auto it = p.live.begin(); it != p.live.end();) {
    const auto at = it++;
    if (at->second.owner == free_blocks) release(p, at);
  }
  cuda_check(cudaStreamSynchronize(stream()), "waiting for queued work");
  release_segments(p, *free_blocks);
  delete free_blocks;
}

Workspace::Workspace(size_t bytes) : memory_(device_alloc(bytes)) {}
Workspace::~Workspace() {
  try {
    device_free(memory_);
  } catch (...) {
  }
}

// ---- copies -------------------------------------------------------------------------------------------------------
namespace {

constexpr size_t kSlot = (size_t)512 << 10;
constexpr int kSlots = 64;
constexpr int kReaders = 8;
constexpr int kSlotsPerReader = kSlots / kReaders;

struct Ring {
  std::mutex lock;
  char* memory = nullptr;
  cudaEvent_t done[kSlots];
  int next = 0;
  unsigned round = 0;

  void open() {
    if (memory) return;
    void* p = nullptr;
    cuda_check(cudaMallocHost(&p, kSlot * kSlots), "pinned memory");
    for (auto& e : done) cuda_check(cudaEventCreateWithFlags(&e, cudaEventDisableTiming), "cudaEventCreate");
    memory = static_cast<char*>(p);
  }
  int take() {
    const int slot = next;
    next = (next + 1) % kSlots;
    cuda_check(cudaEventSynchronize(done[slot]), "waiting for a copy");
    return slot;
  }
};

Ring& ring() {
  static Ring* r = new Ring;
  return *r;
}

}  // namespace

void copy_to_device(void* dst, const void* src, size_t bytes) {
  if (recording()) fail(RCM_E_BACKEND, "host memory cannot be part of a recording");
  const cudaStream_t s = stream();
  Ring& r = ring();
  std::lock_guard<std::mutex> hold(r.lock);
  r.open();
  for (size_t at = 0; at < bytes; at += kSlot) {
    const size_t part = bytes - at < kSlot ? bytes - at : kSlot;
    const int slot = r.take();
    std::memcpy(r.memory + slot * kSlot, (const char*)src + at, part);
    cuda_check(cudaMemcpyAsync((char*)dst + at, r.memory + slot * kSlot, part, cudaMemcpyHostToDevice, s),
               "copy to the GPU");
    cuda_check(cudaEventRecord(r.done[slot], s), "cudaEventRecord");
  }
}

void fill_device(void* dst, size_t bytes, const Source& source) {
  if (recording()) fail(RCM_E_BACKEND, "host memory cannot be part of a recording");
  const cudaStream_t s = stream();
  Ring& r = ring();
  std::lock_guard<std::mutex> hold(r.lock);
  r.open();
  // Rotate the first slot, so that small calls do not wait for each other.
  const int first = r.round++ % kSlotsPerReader;
  const size_t parts = (bytes + kSlot - 1) / kSlot;
  std::atomic<size_t> next{0};
  std::mutex failing;
  Failure failure{RCM_OK, ""};
  const auto stop = [&](int32_t code, const std::string& text) {
    next = parts;
    std::lock_guard<std::mutex> one(failing);
    failure = {code, text};
  };
  // A reader cycles through its own slots, so the previous copy out of a slot has always been queued.
  const auto work = [&](int reader) {
    try {
      gpu();
      for (int n = first;; ++n) {
        const size_t at = next.fetch_add(1) * kSlot;
        if (at >= bytes) return;
        const size_t part = std::min(kSlot, bytes - at);
        const int slot = reader * kSlotsPerReader + n % kSlotsPerReader;
        cuda_check(cudaEventSynchronize(r.done[slot]), "waiting for a copy");
        source(at, r.memory + slot * kSlot, part);
        cuda_check(cudaMemcpyAsync((char*)dst + at, r.memory + slot * kSlot, part, cudaMemcpyHostToDevice, s),
                   "copy to the GPU");
        cuda_check(cudaEventRecord(r.done[slot], s), "cudaEventRecord");
      }
    } catch (const Failure& f) {
      stop(f.code, f.text);
    } catch (...) {
      stop(RCM_E_OOM, "host memory exhausted");
    }
  };
  std::vector<std::thread> readers;
  const size_t wanted = std::min({(size_t)kReaders, parts / 2, (size_t)std::thread::hardware_concurrency()});
  readers.reserve(kReaders);
  try {
    for (size_t i = 1; i < wanted; ++i) readers.emplace_back(work, (int)i);
  } catch (const std::exception&) {
    // No more threads available: continue with those that started.
  }
  work(0);
  for (auto& t : readers) t.join();
  if (failure.code != RCM_OK) throw failure;
}

void copy_to_host(void* dst, const void* src, size_t bytes) {
  if (recording()) fail(RCM_E_BACKEND, "host memory cannot be part of a recording");
  const cudaStream_t s = stream();
  Ring& r = ring();
  std::lock_guard<std::mutex> hold(r.lock);
  r.open();
  constexpr size_t kBatch = kSlots / 2;
  for (size_t at = 0; at < bytes;) {
    int slots[kBatch];
    size_t parts[kBatch], queued = 0, from = at;
    for (; queued < kBatch && at < bytes; ++queued) {
      parts[queued] = bytes - at < kSlot ? bytes - at : kSlot;
      slots[queued] = r.take();
      char* pinned = r.memory + slots[queued] * kSlot;
      cuda_check(cudaMemcpyAsync(pinned, (const char*)src + at, parts[queued], cudaMemcpyDeviceToHost, s),
                 "copy from the GPU");
      cuda_check(cudaEventRecord(r.done[slots[queued]], s), "cudaEventRecord");
      at += parts[queued];
    }
    for (size_t i = 0; i < queued; ++i) {
      cuda_check(cudaEventSynchronize(r.done[slots[i]]), "copy from the GPU");
      std::memcpy((char*)dst + from, r.memory + slots[i] * kSlot, parts[i]);
      from += parts[i];
    }
  }
}

}  // namespace rcm

using namespace rcm;

rcm_status rcm_alloc(int64_t* out, int64_t bytes) {
  return guard("alloc", [&] {
    need(out, "out");
    size_at_least(bytes, 0, "bytes");
    *out = (int64_t)(intptr_t)device_alloc((size_t)bytes);
  });
}

rcm_status rcm_free(void* memory) {
  return guard("free", [&] { device_free(memory); });
}

rcm_status rcm_memory_trim(void) {
  return guard("memory_trim", [] {
    gpu();
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
