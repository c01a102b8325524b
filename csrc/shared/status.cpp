// The last error of a thread, and the ABI hash.
#include "shared/guard.h"

namespace {
thread_local std::string last_error;
}

void rcm::set_last_error(const char* op, const char* text) {
  try {
    last_error = std::string("[") + op + "] " + text;
  } catch (...) {
  }
}

const char* rcm_last_error(void) { return last_error.c_str(); }

rcm_status rcm_abi_hash(int64_t* out) {
  return rcm::guard("abi_hash", [&] {
    rcm::need(out, "out");
    *out = RCM_ABI_HASH;
  });
}
