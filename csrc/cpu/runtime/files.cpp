// rcm_file_read, in parallel parts.
#include "shared/file.h"

#include "common.h"

using namespace rcm;

rcm_status rcm_file_read(const char* path, void* dst, int64_t offset, int64_t bytes) {
  return guard("file_read", [&] {
    need(path, "path");
    need(dst, "dst");
    size_at_least(offset, 0, "offset");
    size_at_least(bytes, 0, "bytes");
    const FileWindow file(path, offset, bytes);
    parallel_for(bytes, 4 << 20, [&](int64_t from, int64_t to, int) {
      file.read(from, static_cast<char*>(dst) + from, (size_t)(to - from));
    });
  });
}
