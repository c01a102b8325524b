// What both allocators count, and the limit that RCM_MEMORY_LIMIT_BYTES sets.
#pragma once
#include <cstdlib>

#include "guard.h"

namespace rcm {

struct MemoryCounts {
  int64_t current = 0, peak = 0, reserved = 0, reserved_peak = 0, allocations = 0;

  static int64_t limit() {
    const char* text = std::getenv("RCM_MEMORY_LIMIT_BYTES");
    return text ? std::atoll(text) : INT64_MAX;
  }
  bool may_reserve(size_t bytes) const { return reserved + (int64_t)bytes <= limit(); }
  void reserve(size_t bytes) {
    reserved += (int64_t)bytes;
    if (reserved > reserved_peak) reserved_peak = reserved;
  }
  void use(size_t bytes) {
    current += (int64_t)bytes;
    if (current > peak) peak = current;
    ++allocations;
  }
  void reset_peak() {
    peak = current;
    reserved_peak = reserved;
  }
  // The six numbers of rcm_memory_stats.
  void write(int64_t* out, size_t live_blocks) const {
    const int64_t stats[6] = {current, peak, reserved, reserved_peak, allocations, (int64_t)live_blocks};
    for (int i = 0; i < 6; ++i) out[i] = stats[i];
  }
};

}  // namespace rcm
