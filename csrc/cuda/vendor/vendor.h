// NVIDIA's libraries, opened at run time: what is found, by name, or why not.
#pragma once
#include <string>

namespace rcm {

// A handle for dlsym and the path that gave it, or null. Searched: the loader's path, RCM_CUDA_LIBS (a list of folders), CUDA_HOME,
// /usr/local/cuda, and the nvidia packages of the Pythons on PATH.
void* open_vendor(const char* const* sonames, std::string* found);

std::string cublaslt_name();
std::string cudnn_name();

}  // namespace rcm
