#include "tensor_map.cuh"

#include "cuda/runtime/common.cuh"

namespace rcm {
namespace {

using Encode = CUresult (*)(CUtensorMap*, CUtensorMapDataType, cuuint32_t, void*, const cuuint64_t*, const cuuint64_t*,
                            const cuuint32_t*, const cuuint32_t*, CUtensorMapInterleave, CUtensorMapSwizzle,
                            CUtensorMapL2promotion, CUtensorMapFloatOOBfill);

// The driver's function, looked up at run time because the library does not link to libcuda; null where it is missing.
Encode find_encode() {
  void* f = nullptr;
  cudaDriverEntryPointQueryResult found;
  if (cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &f, 12000, cudaEnableDefault, &found) != cudaSuccess)
    f = nullptr;
  cudaGetLastError();
  return reinterpret_cast<Encode>(f);
}

}  // namespace

bool encode_tensor_map(CUtensorMap* map, const BoxedTensor& t) {
  static const Encode encode = find_encode();
  if (!encode || !aligned(t.data, 16)) return false;
  cuuint64_t size[5], bytes[4];
  cuuint32_t box[5], ones[5];
  for (int i = 0; i < t.rank; ++i) size[i] = (cuuint64_t)t.sizes[i], box[i] = (cuuint32_t)t.box[i], ones[i] = 1;
  for (int i = 0; i + 1 < t.rank; ++i) {
    bytes[i] = (cuuint64_t)t.strides[i] * 2;
    if (bytes[i] == 0 || bytes[i] % 16 != 0 || bytes[i] >= ((cuuint64_t)1 << 40)) return false;
  }
  const auto type = t.dtype == RCM_BF16 ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16 : CU_TENSOR_MAP_DATA_TYPE_FLOAT16;
  const auto swizzle = t.swizzle_bytes == 128  ? CU_TENSOR_MAP_SWIZZLE_128B
                       : t.swizzle_bytes == 64 ? CU_TENSOR_MAP_SWIZZLE_64B
                                               : CU_TENSOR_MAP_SWIZZLE_32B;
  return encode(map, type, (cuuint32_t)t.rank, const_cast<void*>(t.data), size, bytes, box, ones,
                CU_TENSOR_MAP_INTERLEAVE_NONE, swizzle, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) == CUDA_SUCCESS;
}

}  // namespace rcm
