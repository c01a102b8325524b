// The kernels behind rcm_conv3d.
#pragma once
#include "cuda/runtime/common.cuh"
#include "shared/ops/conv3d.h"

namespace rcm {

struct ConvCall {
  const void *x, *past, *w, *b, *r;
  void* y;
  int32_t dtype, b_dtype;
};

// The specification: any geometry and dtype.
void conv_generic(const ConvShape& g, const ConvCall& c);
// sm_90a, bf16 and f16. False, and nothing done, where the geometry is not one of its own.
bool conv_hopper(const ConvShape& g, const ConvCall& c);

}  // namespace rcm
