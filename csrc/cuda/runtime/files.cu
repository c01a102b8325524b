// rcm_file_read: several threads fill pinned slots, which are copied to the device.
#include "common.cuh"
#include "memory.h"
#include "shared/file.h"

using namespace rcm;

rcm_status rcm_file_read(const char* path, void* dst, int64_t offset, int64_t bytes) {
  return op_call("file_read", [&] {
    need(path, "path");
    need(dst, "dst");
    size_at_least(offset, 0, "offset");
    size_at_least(bytes, 0, "bytes");
    const FileWindow file(path, offset, bytes);
    fill_device(dst, (size_t)bytes, [&](size_t at, char* into, size_t n) { file.read((int64_t)at, into, n); });
  });
}
