// The kernels behind rcm_conv3d.
#pragma once
#include "cuda/runtime/common.cuh"
#include "shared/ops/conv3d.h"

namespace rcm {

// The reference kernel: any geometry and dtype.
void conv_generic(const ConvShape& g, const conv3d::Call& c);
// sm_90a, bf16 and f16. Returns false, having done nothing, for a geometry that it does not support.
bool conv_hopper(const ConvShape& g, const conv3d::Call& c);

}  // namespace rcm
