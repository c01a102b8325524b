#include "cudnn.h"

#include <dlfcn.h>

#include <cstdlib>
#include <cstring>

#include "vendor.h"

namespace rcm {
namespace dnn {
namespace {

template <class F>
bool bind(void* so, const char* name, F& target) {
  target = reinterpret_cast<F>(dlsym(so, name));
  return target != nullptr;
}

Library open() {
  Library l;
  const char* choice = std::getenv("RCM_CUDNN");
  if (choice && std::strcmp(choice, "none") == 0) {
    l.name = "none (RCM_CUDNN=none)";
    return l;
  }
  const char* names[] = {"libcudnn.so.9", nullptr};
  std::string found;
  void* so = open_vendor(names, &found);
  if (!so) {
    l.name = "none (libcudnn.so.9 not found)";
    return l;
  }
  int32_t (*create)(Handle*) = nullptr;
  size_t (*version)() = nullptr;
  const bool whole = bind(so, "cudnnCreate", create) && bind(so, "cudnnGetVersion", version) &&
                     bind(so, "cudnnSetStream", l.set_stream) && bind(so, "cudnnBackendCreateDescriptor", l.create) &&
                     bind(so, "cudnnBackendDestroyDescriptor", l.destroy) &&
                     bind(so, "cudnnBackendSetAttribute", l.set) && bind(so, "cudnnBackendGetAttribute", l.get) &&
                     bind(so, "cudnnBackendFinalize", l.finalize) && bind(so, "cudnnBackendExecute", l.execute);
  if (!whole || create(&l.handle) != 0) {
    l.handle = nullptr;
    l.name = "none (" + found + " does not start)";
    return l;
  }
  const size_t v = l.version = version();
  l.name = "cuDNN " + std::to_string(v / 10000) + "." + std::to_string(v / 100 % 100) + "." + std::to_string(v % 100);
  return l;
}

}  // namespace

const Library& library() {
  static Library* l = new Library(open());
  return *l;
}

}  // namespace dnn

std::string cudnn_name() { return dnn::library().name; }

}  // namespace rcm
