// Reads windows of files through rcm_file_read under sanitizers: random offsets and sizes, past the end, of files that
// shrink meanwhile, of paths that are not files. Every call must fill exactly its window or name the failure.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "../../csrc/include/rcm.h"

namespace {

int failures = 0;

void expect(bool ok, const char* what, long long index) {
  if (ok) return;
  std::printf("input %lld: %s: %s\n", index, what, rcm_last_error());
  ++failures;
}

bool names_failure(rcm_status status) {
  return (status == RCM_E_IO || status == RCM_E_ARG || status == RCM_E_SHAPE) && std::strlen(rcm_last_error()) > 5;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) return 2;
  const std::string folder = argv[1];
  const long long inputs = std::atoll(argv[2]);
  const std::string path = folder + "/data", pipe = folder + "/pipe", shrinking = folder + "/shrinking";
  std::mt19937_64 random(7);
  std::vector<unsigned char> content(9 << 20);
  for (auto& b : content) b = (unsigned char)random();
  for (const std::string& name : {path, shrinking}) {
    FILE* f = std::fopen(name.c_str(), "wb");
    if (!f || std::fwrite(content.data(), 1, content.size(), f) != content.size() || std::fclose(f) != 0) return 2;
  }
  if (mkfifo(pipe.c_str(), 0600) != 0) return 2;
  rcm_init(0, 4);
  const int64_t size = (int64_t)content.size();
  const int64_t edges[] = {
      0, 1, 511, 4096, 1 << 20, size - 1, size, size + 1, (int64_t)1 << 32, (int64_t)1 << 62, INT64_MAX, INT64_MIN, -1};
  const std::string places[] = {path, path, path, path, folder, pipe, folder + "/missing", "", std::string(5000, 'x')};
  for (long long i = 0; i < inputs; ++i) {
    const bool edge = random() % 3 == 0;
    int64_t offset = edge ? edges[random() % 13] : (int64_t)(random() % (uint64_t)size);
    const uint64_t most = random() % 50 == 0 ? (uint64_t)size : 5000u;
    int64_t bytes = random() % 5 == 0 ? edges[random() % 13] : (int64_t)(random() % most);
    const std::string& place = places[random() % 9];
    const bool inside = offset >= 0 && bytes >= 0 && bytes <= size && offset <= size - bytes;
    // A window of exactly its size: a byte too many is a sanitizer's finding.
    std::vector<unsigned char> into(inside && bytes > 0 ? (size_t)bytes : 1);
    const rcm_status status = rcm_file_read(place.c_str(), into.data(), offset, bytes);
    if (inside && place == path) {
      expect(status == RCM_OK, "a window inside the file failed", i);
      expect(std::memcmp(into.data(), content.data() + offset, (size_t)bytes) == 0, "a window holds other bytes", i);
    } else {
      expect(names_failure(status), "nothing was refused", i);
    }
  }
  expect(rcm_file_read(nullptr, content.data(), 0, 1) == RCM_E_ARG, "no path", -1);
  expect(rcm_file_read(path.c_str(), nullptr, 0, 1) == RCM_E_ARG, "no memory", -1);

  // A file that is cut while large windows of it are read: success or a named failure, never a fault.
  std::atomic<bool> done{false};
  std::thread cutter([&] {
    for (int k = 0; !done; ++k) {
      if (truncate(shrinking.c_str(), k % 2 ? size : 4096) != 0) std::abort();
      std::this_thread::yield();
    }
  });
  std::vector<unsigned char> whole(content.size());
  for (int i = 0; i < 300; ++i) {
    const rcm_status status = rcm_file_read(shrinking.c_str(), whole.data(), 0, size);
    expect(status == RCM_OK || names_failure(status), "a shrinking file", i);
  }
  done = true;
  cutter.join();
  for (const std::string& name : {path, pipe, shrinking}) unlink(name.c_str());
  std::printf("%lld windows, %d failures\n", inputs, failures);
  return failures == 0 ? 0 : 1;
}
