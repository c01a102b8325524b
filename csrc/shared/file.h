// A window of a file, read by position so that threads can share one descriptor.
#pragma once
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "guard.h"

namespace rcm {

class FileWindow {
 public:
  FileWindow(const char* path, int64_t offset, int64_t bytes) : path_(path), offset_(offset) {
    if (bytes > INT64_MAX - offset) fail(RCM_E_ARG, "offset + bytes: want below 2^63");
    fd_ = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd_ < 0) refuse("cannot open");
    struct stat info;
    const bool known = fstat(fd_, &info) == 0;
    const int cause = errno;
    const bool whole = known && S_ISREG(info.st_mode) && info.st_size >= offset + bytes;
    if (whole) return;
    close(fd_);
    fd_ = -1;
    if (!known) {
      errno = cause;
      refuse("cannot stat");
    }
    if (!S_ISREG(info.st_mode)) fail(RCM_E_IO, "not a regular file: %s", path);
    fail(RCM_E_IO, "the file ends at byte %lld; want %lld bytes from byte %lld on: %s", (long long)info.st_size,
         (long long)bytes, (long long)offset, path);
  }
  ~FileWindow() {
    if (fd_ >= 0) close(fd_);
  }
  FileWindow(const FileWindow&) = delete;
  FileWindow& operator=(const FileWindow&) = delete;

  // Reads n bytes from position `at` of the window. If the file shrinks meanwhile, this fails cleanly.
  void read(int64_t at, char* into, size_t n) const {
    while (n > 0) {
      const ssize_t got = pread(fd_, into, n, (off_t)(offset_ + at));
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) refuse("cannot read");
      if (got == 0) fail(RCM_E_IO, "the file shrank while it was read: %s", path_);
      at += got;
      into += got;
      n -= (size_t)got;
    }
  }

 private:
  [[noreturn]] void refuse(const char* what) const {
    char text[128] = "";
    const char* why = strerror_r(errno, text, sizeof text);
    fail(RCM_E_IO, "%s (%s): %s", what, why, path_);
  }

  const char* path_;
  int64_t offset_;
  int fd_ = -1;
};

}  // namespace rcm
