// The part of cuBLASLt's C interface that matmul.cu uses. The library is opened at run time; names and numbers are
// NVIDIA's.
#pragma once
#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <string>

namespace rcm {
namespace lt {

using Handle = void*;
using MatmulDesc = void*;
using Layout = void*;
using Preference = void*;

struct Algo {
  uint64_t data[8];
};
struct Heuristic {
  Algo algo;
  size_t workspace;
  int32_t state;
  float waves;
  int32_t reserved[4];
};

enum ComputeType : int32_t { kCompute32F = 68, kCompute64F = 70 };
enum DataType : int32_t { kR32F = 0, kR64F = 1, kR16F = 2, kR16BF = 14 };
enum DescAttribute : int32_t {
  kTransA = 3,
  kTransB = 4,
  kEpilogue = 7,
  kBiasPointer = 8,
  kAuxPointer = 11,
  kAuxLd = 12
};
enum PreferenceAttribute : int32_t { kMaxWorkspace = 1, kAlignA = 5, kAlignB = 6, kAlignC = 7, kAlignD = 8 };
enum Epilogue : int32_t { kDefault = 1, kBias = 4, kGeluAux = 160, kGeluAuxBias = 164 };

// Null functions when the library is absent.
struct Library {
  std::string name;  // "cuBLASLt 13.0.2" or "built-in (why)"
  Handle handle = nullptr;
  int32_t (*matmul)(Handle, MatmulDesc, const void* alpha, const void* A, Layout, const void* B, Layout,
                    const void* beta, const void* C, Layout, void* D, Layout, const Algo*, void* workspace,
                    size_t workspace_bytes, cudaStream_t) = nullptr;
  int32_t (*desc_create)(MatmulDesc*, int32_t compute, int32_t scale) = nullptr;
  int32_t (*desc_destroy)(MatmulDesc) = nullptr;
  int32_t (*desc_set)(MatmulDesc, int32_t attribute, const void*, size_t) = nullptr;
  int32_t (*layout_create)(Layout*, int32_t type, uint64_t rows, uint64_t cols, int64_t ld) = nullptr;
  int32_t (*layout_destroy)(Layout) = nullptr;
  int32_t (*preference_create)(Preference*) = nullptr;
  int32_t (*preference_destroy)(Preference) = nullptr;
  int32_t (*preference_set)(Preference, int32_t attribute, const void*, size_t) = nullptr;
  int32_t (*heuristic)(Handle, MatmulDesc, Layout A, Layout B, Layout C, Layout D, Preference, int wanted, Heuristic*,
                       int* found) = nullptr;
};

// Opened on first use; RCM_BLAS=none disables it.
const Library& library();

}  // namespace lt
}  // namespace rcm
