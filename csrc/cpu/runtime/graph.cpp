// Recorded call sequences exist only on the GPU.
#include "common.h"

using namespace rcm;

namespace {
rcm_status absent(const char* op) {
  return guard(op, [] { fail(RCM_E_BACKEND, "the CPU library does not record calls"); });
}
}  // namespace

rcm_status rcm_graph_memory(int64_t*) { return absent("graph_memory"); }
rcm_status rcm_graph_memory_free(int64_t) { return absent("graph_memory_free"); }
rcm_status rcm_graph_begin(int64_t) { return absent("graph_begin"); }
rcm_status rcm_graph_end(int64_t*) { return absent("graph_end"); }
rcm_status rcm_graph_launch(int64_t) { return absent("graph_launch"); }
rcm_status rcm_graph_free(int64_t) { return absent("graph_free"); }
