// Which GPU code this pass of nvcc compiles. The host pass sees every kernel body.
#pragma once

// wgmma and TMA exist for sm_90a only; on other targets such kernels have empty bodies and are never launched.
#if !defined(__CUDA_ARCH__) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define RCM_HOPPER_CODE 1
#else
#define RCM_HOPPER_CODE 0
#endif
