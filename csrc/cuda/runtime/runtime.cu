// The device, its streams, errors, and synchronous copies.
#include <atomic>
#include <mutex>

#include "common.cuh"
#include "memory.h"
#include "cuda/vendor/vendor.h"

namespace rcm {
namespace {

thread_local int current_device = -1;

struct State {
  std::mutex lock;
  Gpu gpu;
  std::atomic<bool> split{false}, deterministic{true};
};
State& state() {
  static State* s = new State;  // never destroyed: calls may still arrive at exit
  return *s;
}

void open_device(Gpu& g, int index) {
  int count = 0;
  cuda_check(cudaGetDeviceCount(&count), "no usable GPU");
  if (index >= count) fail(RCM_E_BACKEND, "device %d: want below %d, the number of GPUs", index, count);
  cuda_check(cudaSetDevice(index), "cudaSetDevice");
  cudaDeviceProp p;
  cuda_check(cudaGetDeviceProperties(&p, index), "cudaGetDeviceProperties");
  if (p.major < 8) fail(RCM_E_BACKEND, "%s has compute capability %d.%d; want 8.0 or newer", p.name, p.major, p.minor);
  if (g.compute == nullptr || g.index != index) {
    cuda_check(cudaStreamCreateWithFlags(&g.compute, cudaStreamNonBlocking), "cudaStreamCreate");
    cuda_check(cudaStreamCreateWithFlags(&g.copies, cudaStreamNonBlocking), "cudaStreamCreate");
  }
  g.sms = p.multiProcessorCount;
  g.major = p.major;
  g.minor = p.minor;
  g.l2_bytes = (size_t)p.l2CacheSize;
  g.memory_bytes = p.totalGlobalMem;
  g.shared_per_block = p.sharedMemPerBlockOptin;
  std::snprintf(g.name, sizeof g.name, "%s", p.name);
  const char* debug = std::getenv("RCM_DEBUG");
  g.debug = debug && std::strstr(debug, "sync");
  // Only sm_90 code contains the wait for the predecessor; other devices run sm_80 code.
  g.early = g.major == 9 && !g.debug && !(debug && std::strstr(debug, "ordered"));
  g.index = index;
}

}  // namespace

void cuda_fail(cudaError_t error, const char* what) {
  cudaGetLastError();
  const char* name = cudaGetErrorName(error);
  if (error == cudaErrorMemoryAllocation) fail(RCM_E_OOM, "%s: %s", what, name);
  const bool kernel = error == cudaErrorIllegalAddress || error == cudaErrorLaunchFailure ||
                      error == cudaErrorMisalignedAddress || error == cudaErrorIllegalInstruction ||
                      error == cudaErrorAssert || error == cudaErrorHardwareStackError;
  const bool named = state().gpu.debug;
  fail(RCM_E_BACKEND, "%s: %s (%s)%s", what, name, cudaGetErrorString(error),
       kernel && !named ? "; an earlier op failed while it ran: set RCM_DEBUG=sync to learn which" : "");
}

Gpu& gpu() {
  State& s = state();
  if (s.gpu.index < 0) {
    std::lock_guard<std::mutex> hold(s.lock);
    if (s.gpu.index < 0) open_device(s.gpu, 0);
  }
  if (current_device != s.gpu.index) {
    cuda_check(cudaSetDevice(s.gpu.index), "cudaSetDevice");
    current_device = s.gpu.index;
  }
  return s.gpu;
}

void begin_op() { gpu(); }
void end_op() {
  cuda_check(cudaPeekAtLastError(), "launch");
  if (gpu().debug && !recording()) cuda_check(cudaStreamSynchronize(stream()), "kernel");
}

bool& recording() {
  static bool on = false;
  return on;
}

bool split_products() { return state().split; }
bool deterministic() { return state().deterministic; }

}  // namespace rcm

using namespace rcm;

rcm_status rcm_f32_products(int32_t mode) {
  return guard("f32_products", [&] {
    if (mode < 0 || mode > 1) fail(RCM_E_ARG, "mode: want 0 or 1, got %d", mode);
    state().split = mode == 1;
  });
}

rcm_status rcm_deterministic(int32_t mode) {
  return guard("deterministic", [&] {
    if (mode < 0 || mode > 1) fail(RCM_E_ARG, "mode: want 0 or 1, got %d", mode);
    state().deterministic = mode == 1;
  });
}

rcm_status rcm_init(int32_t device_index, int32_t threads) {
  return guard("init", [&] {
    if (device_index < 0) fail(RCM_E_ARG, "device_index: want at least 0, got %d", device_index);
    if (threads < 0 || threads > 4096) fail(RCM_E_ARG, "threads: want 0 to 4096, got %d", threads);
    State& s = state();
    std::lock_guard<std::mutex> hold(s.lock);
    if (s.gpu.index >= 0 && s.gpu.index != device_index) {
      fail(RCM_E_BACKEND, "device_index: this process already works on GPU %d", s.gpu.index);
    }
    open_device(s.gpu, device_index);
    current_device = device_index;
  });
}

rcm_status rcm_runtime_info(char* out, int64_t capacity) {
  return guard("runtime_info", [&] {
    need(out, "out");
    const Gpu& g = gpu();
    size_t free_bytes = 0, total = 0;
    cuda_check(cudaMemGetInfo(&free_bytes, &total), "cudaMemGetInfo");
    int driver = 0, runtime = 0;
    cuda_check(cudaDriverGetVersion(&driver), "cudaDriverGetVersion");
    cuda_check(cudaRuntimeGetVersion(&runtime), "cudaRuntimeGetVersion");
    const int n =
        std::snprintf(out, (size_t)capacity,
                      "{\"backend\":\"cuda\",\"device\":\"%s\",\"isa\":\"sm_%d%d\",\"best_isa\":\"sm_%d%d\","
                      "\"threads\":1,\"blas\":\"%s\",\"cudnn\":\"%s\","
                      "\"sms\":%d,\"memory_bytes\":%lld,\"memory_free_bytes\":%lld,\"l2_bytes\":%lld,\"driver\":\"%d.%"
                      "d\",\"runtime\":\"%d.%d\"}",
                      g.name, g.major, g.minor, g.major, g.minor, cublaslt_name().c_str(), cudnn_name().c_str(), g.sms,
                      (long long)total, (long long)free_bytes, (long long)g.l2_bytes, driver / 1000, driver % 1000 / 10,
                      runtime / 1000, runtime % 1000 / 10);
    if (n < 0 || n >= capacity) fail(RCM_E_ARG, "capacity: want more than %d, got %lld", n, (long long)capacity);
  });
}

rcm_status rcm_sync(void) {
  return guard("sync", [] { cuda_check(cudaStreamSynchronize(stream()), "waiting for queued work"); });
}

rcm_status rcm_copy(void* dst, const void* src, int64_t bytes, int32_t kind) {
  return guard("copy", [&] {
    need(dst, "dst");
    need(src, "src");
    size_at_least(bytes, 0, "bytes");
    if (kind < 0 || kind > 2) fail(RCM_E_ARG, "kind: want 0, 1 or 2, got %d", kind);
    if (bytes == 0) return;
    if (kind == 2) {
      cuda_check(cudaMemcpyAsync(dst, src, (size_t)bytes, cudaMemcpyDeviceToDevice, stream()), "copy on the device");
    } else if (kind == 0) {
      copy_to_device(dst, src, (size_t)bytes);
    } else {
      copy_to_host(dst, src, (size_t)bytes);
    }
  });
}

rcm_status rcm_zero(void* dst, int64_t bytes) {
  return op_call("zero", [&] {
    need(dst, "dst");
    size_at_least(bytes, 0, "bytes");
    if (bytes > 0) cuda_check(cudaMemsetAsync(dst, 0, (size_t)bytes, stream()), "cudaMemsetAsync");
  });
}
