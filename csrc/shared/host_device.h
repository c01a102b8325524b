// RCM_BOTH marks functions that the GPU code calls too.
#pragma once

#ifdef __CUDACC__
#define RCM_BOTH __host__ __device__
#else
#define RCM_BOTH
#endif
