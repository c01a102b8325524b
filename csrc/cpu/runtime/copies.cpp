// Asynchronous copies. On the CPU a copy completes at once, so waiting only checks that the event was recorded.
#include <mutex>
#include <unordered_set>

#include "common.h"

using namespace rcm;

namespace {

constexpr int kEvents = 64;
bool recorded[kEvents];

struct HostMemory {
  std::mutex lock;
  std::unordered_set<void*> live;
};
HostMemory& host_memory() {
  static HostMemory* m = new HostMemory;  // never destroyed: calls may still arrive at exit
  return *m;
}

void in_range(int32_t v, int32_t below, const char* name) {
  if (v < 0 || v >= below) fail(RCM_E_ARG, "%s: want 0 to %d, got %d", name, below - 1, v);
}
void was_recorded(int32_t event) {
  in_range(event, kEvents, "event");
  if (!recorded[event]) fail(RCM_E_ARG, "event %d: never recorded", event);
}

}  // namespace

rcm_status rcm_host_alloc(int64_t* out, int64_t bytes) {
  return guard("host_alloc", [&] {
    need(out, "out");
    size_at_least(bytes, 0, "bytes");
    if (bytes > ((int64_t)1 << 46)) fail(RCM_E_OOM, "want %lld bytes of host memory", (long long)bytes);
    void* p = std::aligned_alloc(256, ((size_t)bytes + 256) & ~(size_t)255);
    if (p == nullptr) fail(RCM_E_OOM, "want %lld bytes of host memory", (long long)bytes);
    HostMemory& m = host_memory();
    std::lock_guard<std::mutex> hold(m.lock);
    m.live.insert(p);
    *out = (int64_t)(intptr_t)p;
  });
}

rcm_status rcm_host_free(void* memory) {
  return guard("host_free", [&] {
    if (memory == nullptr) return;
    HostMemory& m = host_memory();
    std::lock_guard<std::mutex> hold(m.lock);
    if (m.live.erase(memory) == 0) fail(RCM_E_ARG, "memory: not live memory of rcm_host_alloc");
    std::free(memory);
  });
}

rcm_status rcm_copy_async(void* dst, const void* src, int64_t bytes, int32_t kind) {
  return rcm_copy(dst, src, bytes, kind);
}

rcm_status rcm_event_record(int32_t event, int32_t stream) {
  return guard("event_record", [&] {
    in_range(event, kEvents, "event");
    in_range(stream, 2, "stream");
    recorded[event] = true;
  });
}

rcm_status rcm_stream_wait(int32_t stream, int32_t event) {
  return guard("stream_wait", [&] {
    in_range(stream, 2, "stream");
    was_recorded(event);
  });
}

rcm_status rcm_event_sync(int32_t event) {
  return guard("event_sync", [&] { was_recorded(event); });
}
