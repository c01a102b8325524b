#include "cublaslt.h"

#include <dlfcn.h>

#include <cstdlib>
#include <cstring>

#include "vendor.h"

namespace rcm {
namespace lt {
namespace {

template <class F>
bool bind(void* so, const char* name, F& target) {
  target = reinterpret_cast<F>(dlsym(so, name));
  return target != nullptr;
}

Library open() {
  Library l;
  const char* choice = std::getenv("RCM_BLAS");
  if (choice && std::strcmp(choice, "none") == 0) {
    l.name = "built-in (RCM_BLAS=none)";
    return l;
  }
  const char* names[] = {"libcublasLt.so.13", "libcublasLt.so.12", "libcublasLt.so", nullptr};
  std::string found;
  void* so = open_vendor(names, &found);
  if (!so) {
    l.name = "built-in (libcublasLt not found)";
    return l;
  }
  int32_t (*create)(Handle*) = nullptr;
  size_t (*version)() = nullptr;
  const bool whole = bind(so, "cublasLtCreate", create) && bind(so, "cublasLtGetVersion", version) &&
                     bind(so, "cublasLtMatmul", l.matmul) && bind(so, "cublasLtMatmulDescCreate", l.desc_create) &&
                     bind(so, "cublasLtMatmulDescDestroy", l.desc_destroy) &&
                     bind(so, "cublasLtMatmulDescSetAttribute", l.desc_set) &&
                     bind(so, "cublasLtMatrixLayoutCreate", l.layout_create) &&
                     bind(so, "cublasLtMatrixLayoutDestroy", l.layout_destroy) &&
                     bind(so, "cublasLtMatmulPreferenceCreate", l.preference_create) &&
                     bind(so, "cublasLtMatmulPreferenceDestroy", l.preference_destroy) &&
                     bind(so, "cublasLtMatmulPreferenceSetAttribute", l.preference_set) &&
                     bind(so, "cublasLtMatmulAlgoGetHeuristic", l.heuristic);
  if (!whole || create(&l.handle) != 0) {
    l.handle = nullptr;
    l.name = "built-in (" + found + " does not start)";
    return l;
  }
  const size_t v = version();
  l.name =
      "cuBLASLt " + std::to_string(v / 10000) + "." + std::to_string(v / 100 % 100) + "." + std::to_string(v % 100);
  return l;
}

}  // namespace

const Library& library() {
  static Library* l = new Library(open());
  return *l;
}

}  // namespace lt

std::string cublaslt_name() { return lt::library().name; }

}  // namespace rcm
