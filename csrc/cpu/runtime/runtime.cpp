#include <omp.h>
#include <sched.h>

#include <new>
#include <vector>

#include "blas.h"
#include "common.h"

namespace rcm {

static int thread_count = 0;

void begin_op() {}
void end_op() {}

static int usable_threads() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof set, &set) == 0) {
    int n = CPU_COUNT(&set);
    if (n > 0) return n;
  }
  return 1;
}

int threads() {
  if (thread_count == 0) thread_count = usable_threads();
  return thread_count;
}

namespace {
struct Buffer {
  void* data = nullptr;
  size_t bytes = 0;
  ~Buffer() { std::free(data); }
};
thread_local Buffer buffers[kScratchSlots];
}  // namespace

void* scratch_bytes(int slot, size_t bytes) {
  Buffer& b = buffers[slot];
  if (bytes > b.bytes) {
    std::free(b.data);
    b.bytes = 0;
    size_t rounded = (bytes + 4095) & ~(size_t)4095;
    b.data = std::aligned_alloc(4096, rounded);
    if (b.data == nullptr) fail(RCM_E_OOM, "scratch of %zu bytes", rounded);
    b.bytes = rounded;
  }
  return b.data;
}

static const char* compiled_isa() {
#if defined(__AVX512F__)
  return "avx512";
#elif defined(__AVX2__)
  return "avx2";
#else
  return "baseline";
#endif
}

static const char* best_isa() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("fma")) {
    return "avx512";
  }
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2")) return "avx2";
#endif
  return "baseline";
}

}  // namespace rcm

using namespace rcm;

rcm_status rcm_init(int32_t device_index, int32_t count) {
  return guard("init", [&] {
    if (device_index < 0) fail(RCM_E_ARG, "device_index: want at least 0, got %d", device_index);
    if (count < 0 || count > 4096) fail(RCM_E_ARG, "threads: want 0 to 4096, got %d", count);
    thread_count = count == 0 ? usable_threads() : count;
    omp_set_dynamic(0);
    blas();
  });
}

rcm_status rcm_runtime_info(char* out, int64_t capacity) {
  return guard("runtime_info", [&] {
    need(out, "out");
    int n = std::snprintf(
        out, (size_t)capacity,
        "{\"backend\":\"cpu\",\"device\":\"cpu\",\"isa\":\"%s\",\"best_isa\":\"%s\",\"threads\":%d,\"blas\":\"%s\"}",
        compiled_isa(), best_isa(), threads(), blas().name.c_str());
    if (n < 0 || n >= capacity) fail(RCM_E_ARG, "capacity: want more than %d, got %lld", n, (long long)capacity);
  });
}

rcm_status rcm_f32_products(int32_t mode) {
  return guard("f32_products", [&] {
    if (mode < 0 || mode > 1) fail(RCM_E_ARG, "mode: want 0 or 1, got %d", mode);
  });
}

rcm_status rcm_deterministic(int32_t mode) {
  return guard("deterministic", [&] {
    if (mode < 0 || mode > 1) fail(RCM_E_ARG, "mode: want 0 or 1, got %d", mode);
  });
}

rcm_status rcm_sync(void) { return RCM_OK; }
