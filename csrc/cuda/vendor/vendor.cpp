#include "vendor.h"

#include <dlfcn.h>
#include <glob.h>

#include <cstdlib>
#include <vector>

namespace rcm {
namespace {

void add_matches(std::vector<std::string>& folders, const std::string& pattern) {
  glob_t found;
  if (glob(pattern.c_str(), 0, nullptr, &found) == 0) {
    for (size_t i = 0; i < found.gl_pathc; ++i) folders.push_back(found.gl_pathv[i]);
  }
  globfree(&found);
}

std::vector<std::string> split(const char* list) {
  std::vector<std::string> parts;
  std::string text = list ? list : "";
  for (size_t at = 0; at <= text.size();) {
    const size_t end = text.find(':', at) == std::string::npos ? text.size() : text.find(':', at);
    if (end > at) parts.push_back(text.substr(at, end - at));
    at = end + 1;
  }
  return parts;
}

// Folders searched after the loader's own path.
std::vector<std::string> folders() {
  std::vector<std::string> list = split(std::getenv("RCM_CUDA_LIBS"));
  if (const char* home = std::getenv("CUDA_HOME")) {
    list.push_back(std::string(home) + "/lib64");
    list.push_back(std::string(home) + "/targets/x86_64-linux/lib");
  }
  list.push_back("/usr/local/cuda/lib64");
  std::vector<std::string> prefixes = split(std::getenv("VIRTUAL_ENV"));
  for (const std::string& bin : split(std::getenv("PATH"))) {
    if (bin.size() > 4 && bin.compare(bin.size() - 4, 4, "/bin") == 0)
      prefixes.push_back(bin.substr(0, bin.size() - 4));
  }
  for (const std::string& prefix : prefixes) {
    for (const char* packages : {"site-packages", "dist-packages"})
      add_matches(list, prefix + "/lib/python3*/" + packages + "/nvidia/*/lib");
  }
  return list;
}

}  // namespace

void* open_vendor(const char* const* sonames, std::string* found) {
  const std::vector<std::string> places = folders();
  for (const char* const* name = sonames; *name; ++name) {
    std::vector<std::string> paths = {*name};
    for (const std::string& folder : places) paths.push_back(folder + "/" + *name);
    for (const std::string& path : paths) {
      if (void* handle = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL)) {
        *found = path;
        return handle;
      }
    }
  }
  return nullptr;
}

}  // namespace rcm
