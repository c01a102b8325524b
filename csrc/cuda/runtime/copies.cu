// Copies concurrent with compute: page-locked host memory, the copy stream, and events that order it with compute.
#include <mutex>
#include <unordered_set>

#include "common.cuh"

using namespace rcm;

namespace {

constexpr int kEvents = 64;

struct Events {
  std::mutex lock;
  cudaEvent_t at[kEvents] = {};
};
Events& events() {
  static Events* e = new Events;  // never destroyed: calls may still arrive at exit
  return *e;
}

struct HostMemory {
  std::mutex lock;
  std::unordered_set<void*> live;
};
HostMemory& host_memory() {
  static HostMemory* m = new HostMemory;
  return *m;
}

cudaStream_t stream_of(int32_t index) {
  if (index < 0 || index > 1) fail(RCM_E_ARG, "stream: want 0 to 1, got %d", index);
  Gpu& g = gpu();
  return index == 0 ? g.compute : g.copies;
}

void in_range(int32_t event) {
  if (event < 0 || event >= kEvents) fail(RCM_E_ARG, "event: want 0 to %d, got %d", kEvents - 1, event);
}

cudaEvent_t recorded(int32_t event) {
  in_range(event);
  Events& e = events();
  std::lock_guard<std::mutex> hold(e.lock);
  if (e.at[event] == nullptr) fail(RCM_E_ARG, "event %d: never recorded", event);
  return e.at[event];
}

}  // namespace

rcm_status rcm_host_alloc(int64_t* out, int64_t bytes) {
  return guard("host_alloc", [&] {
    need(out, "out");
    size_at_least(bytes, 0, "bytes");
    gpu();
    void* p = nullptr;
    const cudaError_t error =
        bytes > ((int64_t)1 << 46) ? cudaErrorMemoryAllocation : cudaMallocHost(&p, bytes == 0 ? 1 : (size_t)bytes);
    if (error == cudaErrorMemoryAllocation) {
      cudaGetLastError();
      fail(RCM_E_OOM, "want %lld bytes of page-locked host memory", (long long)bytes);
    }
    cuda_check(error, "page-locked host memory");
    HostMemory& m = host_memory();
    std::lock_guard<std::mutex> hold(m.lock);
    m.live.insert(p);
    *out = (int64_t)(intptr_t)p;
  });
}

rcm_status rcm_host_free(void* memory) {
  return guard("host_free", [&] {
    if (memory == nullptr) return;
    gpu();
    HostMemory& m = host_memory();
    std::lock_guard<std::mutex> hold(m.lock);
    if (m.live.erase(memory) == 0) fail(RCM_E_ARG, "memory: not live memory of rcm_host_alloc");
    cuda_check(cudaFreeHost(memory), "cudaFreeHost");
  });
}

rcm_status rcm_copy_async(void* dst, const void* src, int64_t bytes, int32_t kind) {
  return guard("copy_async", [&] {
    need(dst, "dst");
    need(src, "src");
    size_at_least(bytes, 0, "bytes");
    if (kind < 0 || kind > 2) fail(RCM_E_ARG, "kind: want 0, 1 or 2, got %d", kind);
    const cudaStream_t copies = stream_of(1);
    const cudaMemcpyKind kinds[3] = {cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost, cudaMemcpyDeviceToDevice};
    if (bytes > 0) cuda_check(cudaMemcpyAsync(dst, src, (size_t)bytes, kinds[kind], copies), "asynchronous copy");
  });
}

rcm_status rcm_event_record(int32_t event, int32_t stream) {
  return guard("event_record", [&] {
    in_range(event);
    const cudaStream_t s = stream_of(stream);
    Events& e = events();
    std::lock_guard<std::mutex> hold(e.lock);
    if (e.at[event] == nullptr)
      cuda_check(cudaEventCreateWithFlags(&e.at[event], cudaEventDisableTiming), "cudaEventCreate");
    cuda_check(cudaEventRecord(e.at[event], s), "cudaEventRecord");
  });
}

rcm_status rcm_stream_wait(int32_t stream, int32_t event) {
  return guard("stream_wait", [&] {
    const cudaStream_t s = stream_of(stream);
    cuda_check(cudaStreamWaitEvent(s, recorded(event), 0), "cudaStreamWaitEvent");
  });
}

rcm_status rcm_event_sync(int32_t event) {
  return guard("event_sync", [&] {
    gpu();
    cuda_check(cudaEventSynchronize(recorded(event)), "waiting for an event");
  });
}
