// The part of cuDNN 9's graph interface that attention/cudnn.cu uses. The library is opened at run time; names and
// numbers are NVIDIA's.
#pragma once
#include <cuda_runtime.h>

#include <cstdint>
#include <string>

namespace rcm {
namespace dnn {

using Handle = void*;
using Descriptor = void*;

enum DescriptorType : int32_t {
  kPointwise = 0,
  kEngineConfig = 3,
  kHeuristic = 4,
  kPlan = 5,
  kOpPointwise = 13,
  kOpGraph = 15,
  kVariantPack = 16,
  kTensor = 17,
  kMatmul = 18,
  kOpMatmul = 19,
  kReduction = 21,
  kOpReduction = 22,
  kOpReshape = 31,
};

enum AttributeType : int32_t {
  kHandleType = 0,
  kDataType = 1,
  kBoolean = 2,
  kInt64 = 3,
  kPointer = 6,
  kHeuristicMode = 8,
  kPointwiseMode = 14,
  kDescriptor = 15,
  kReductionOperator = 18,
};

enum Attribute : int32_t {
  kPointwiseModeOf = 0,
  kPointwisePrecision = 1,
  kHeuristicModeOf = 200,
  kHeuristicGraph = 201,
  kHeuristicResults = 202,
  kPlanHandle = 400,
  kPlanConfig = 401,
  kPlanWorkspace = 402,
  kPointwiseDesc = 750,
  kPointwiseX = 751,
  kPointwiseB = 752,
  kPointwiseY = 753,
  kGraphHandle = 800,
  kGraphOps = 801,
  kTensorAlignment = 900,
  kTensorType = 901,
  kTensorDims = 902,
  kTensorStrides = 903,
  kTensorId = 906,
  kTensorVirtual = 907,
  kTensorByValue = 908,
  kPackIds = 1000,
  kPackPointers = 1001,
  kPackWorkspace = 1003,
  kMatmulPrecision = 1500,
  kMatmulA = 1520,
  kMatmulB = 1521,
  kMatmulC = 1522,
  kMatmulDesc = 1523,
  kReductionOperatorOf = 1600,
  kReductionPrecision = 1601,
  kReductionX = 1610,
  kReductionY = 1611,
  kReductionDesc = 1612,
  kReshapeX = 2200,
  kReshapeY = 2201,
};

enum DataTypeCode : int32_t { kFloat = 0, kHalf = 2, kBfloat16 = 9 };
enum PointwiseMode : int32_t { kAdd = 0, kMul = 1, kDiv = 6, kSub = 9, kExp = 13, kLog = 15, kIdentity = 21 };
enum ReductionOperator : int32_t { kSum = 0, kMax = 3 };
constexpr int32_t kHeuristicA = 3;

// The handle is null when the library is absent.
struct Library {
  std::string name;    // "cuDNN 9.19.0" or "none (why)"
  size_t version = 0;  // 91900
  Handle handle = nullptr;
  int32_t (*set_stream)(Handle, cudaStream_t) = nullptr;
  int32_t (*create)(int32_t type, Descriptor*) = nullptr;
  int32_t (*destroy)(Descriptor) = nullptr;
  int32_t (*set)(Descriptor, int32_t attribute, int32_t type, int64_t count, const void*) = nullptr;
  int32_t (*get)(Descriptor, int32_t attribute, int32_t type, int64_t asked, int64_t* count, void*) = nullptr;
  int32_t (*finalize)(Descriptor) = nullptr;
  int32_t (*execute)(Handle, Descriptor plan, Descriptor pack) = nullptr;
};

// Opened on first use; RCM_CUDNN=none disables it.
const Library& library();

}  // namespace dnn
}  // namespace rcm
