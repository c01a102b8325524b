// NVIDIA's libraries, opened at run time.
#pragma once
#include <string>

namespace rcm {

// A handle for dlsym, with the path it was found at, or null. Searches the loader's path, RCM_CUDA_LIBS (a list of
// folders), CUDA_HOME, /usr/local/cuda, and the nvidia packages of the Pythons on PATH.
void* open_vendor(const char* const* sonames, std::string* found);

// Name and version of the library in use, or the reason why there is none.
std::string cublaslt_name();
std::string cudnn_name();

}  // namespace rcm
