// Shared by every CPU op: storage types, row access, threads, scratch.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string>
#include <type_traits>
#include <utility>

#include "shared/dtype.h"
#include "shared/guard.h"

namespace rcm {

struct bf16 {
  uint16_t bits;
};
struct f16 {
  uint16_t bits;
};

inline float to_float(float v) { return v; }
inline double to_float(double v) { return v; }
inline float to_float(bf16 v) {
  uint32_t u = (uint32_t)v.bits << 16;
  float f;
  std::memcpy(&f, &u, 4);
  return f;
}
inline float to_float(f16 v) {
  uint32_t sign = (uint32_t)(v.bits & 0x8000) << 16, exponent = (v.bits >> 10) & 31, mantissa = v.bits & 1023, u;
  if (exponent == 31) {
    u = sign | 0x7f800000 | (mantissa << 13);
  } else if (exponent != 0) {
    u = sign | ((exponent + 112) << 23) | (mantissa << 13);
  } else {
    float f = (float)mantissa * 5.9604644775390625e-8f;  // 2^-24
    return sign ? -f : f;
  }
  float f;
  std::memcpy(&f, &u, 4);
  return f;
}

template <class T>
inline T from_float(double v);
template <>
inline float from_float<float>(double v) {
  return (float)v;
}
template <>
inline double from_float<double>(double v) {
  return v;
}
template <>
inline bf16 from_float<bf16>(double v) {
  float f = (float)v;
  uint32_t u;
  std::memcpy(&u, &f, 4);
  if ((u & 0x7fffffff) > 0x7f800000) return {(uint16_t)((u >> 16) | 0x40)};
  return {(uint16_t)((u + 0x7fff + ((u >> 16) & 1)) >> 16)};
}
template <>
inline f16 from_float<f16>(double v) {
  float f = (float)v;
  uint32_t u;
  std::memcpy(&u, &f, 4);
  uint16_t sign = (u >> 16) & 0x8000;
  u &= 0x7fffffff;
  if (u > 0x7f800000) return {(uint16_t)(sign | 0x7e00)};
  if (u >= 0x477ff000) return {(uint16_t)(sign | 0x7c00)};
  if (u < 0x38800000) {  // subnormal: scaled so that rounding to an integer gives the mantissa
    float magnitude;
    std::memcpy(&magnitude, &u, 4);
    return {(uint16_t)(sign | (uint16_t)std::nearbyintf(magnitude * 16777216.0f))};
  }
  u += 0xfff + ((u >> 13) & 1);
  return {(uint16_t)(sign | ((u - 0x38000000) >> 13))};
}

// Calls body(T{}) with the storage type of a float dtype code.
template <class Body>
void with_dtype(int32_t dtype, const char* name, Body&& body) {
  dispatch_float<bf16, f16>(dtype, name, std::forward<Body>(body));
}

// Calls body(double{}) when all dtypes are f64 and body(float{}) when none is; a mix is an error.
template <class Body>
void with_compute(std::initializer_list<int32_t> dtypes, Body&& body) {
  int doubles = 0;
  for (int32_t d : dtypes) {
    if (d < RCM_F32 || d > RCM_F64) fail(RCM_E_DTYPE, "want f32, bf16, f16 or f64, got code %d", d);
    doubles += d == RCM_F64;
  }
  if (doubles == 0) return body(float{});
  if (doubles == (int)dtypes.size()) return body(double{});
  fail(RCM_E_DTYPE, "f64 does not mix with other dtypes");
}

// ---- threads ------------------------------------------------------------------------------------------------------
int threads();

// Calls fn(begin, end, part) on contiguous parts of [0, n) of at least `grain` elements. The split is the same in every
// run.
template <class Fn>
void parallel_for(int64_t n, int64_t grain, Fn&& fn) {
  if (n <= 0) return;
  int64_t parts = grain > 0 ? n / grain : n;
  if (parts > threads()) parts = threads();
  if (parts <= 1) {
    fn((int64_t)0, n, 0);
    return;
  }
  Failure failure{0, ""};
#pragma omp parallel for num_threads((int)parts) schedule(static, 1)
  for (int64_t p = 0; p < parts; ++p) {
    try {
      fn(n * p / parts, n * (p + 1) / parts, (int)p);
    } catch (const Failure& f) {
#pragma omp critical
      failure = f;
    } catch (...) {
#pragma omp critical
      failure = {RCM_E_OOM, "host memory exhausted"};
    }
  }
  if (failure.code != 0) throw failure;
}

// ---- scratch ------------------------------------------------------------------------------------------------------
// Per-thread buffers that grow and are kept; a kernel numbers the buffers that it uses at the same time.
constexpr int kScratchSlots = 24;
void* scratch_bytes(int slot, size_t bytes);
template <class T>
T* scratch(int slot, int64_t n) {
  return static_cast<T*>(scratch_bytes(slot, (size_t)n * sizeof(T)));
}

// ---- rows ---------------------------------------------------------------------------------------------------------
template <class C>
constexpr int32_t native_dtype() {
  return std::is_same<C, double>::value ? RCM_F64 : RCM_F32;
}

inline const char* at(const void* base, int64_t index, int32_t dtype) {
  return static_cast<const char*>(base) + index * dtype_bytes(dtype);
}
inline char* at(void* base, int64_t index, int32_t dtype) {
  return static_cast<char*>(base) + index * dtype_bytes(dtype);
}

// n elements from `index` on as C: in place when they are stored as C, else converted to `buffer`.
template <class C>
const C* load_row(const void* base, int32_t dtype, int64_t index, int64_t n, C* buffer) {
  if (dtype == native_dtype<C>()) return static_cast<const C*>(base) + index;
  if (dtype == RCM_BF16) {
    const bf16* x = static_cast<const bf16*>(base) + index;
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) buffer[i] = (C)to_float(x[i]);
  } else if (dtype == RCM_F16) {
    const f16* x = static_cast<const f16*>(base) + index;
    for (int64_t i = 0; i < n; ++i) buffer[i] = (C)to_float(x[i]);
  } else if (dtype == RCM_F32) {
    const float* x = static_cast<const float*>(base) + index;
    for (int64_t i = 0; i < n; ++i) buffer[i] = (C)x[i];
  } else {
    const double* x = static_cast<const double*>(base) + index;
    for (int64_t i = 0; i < n; ++i) buffer[i] = (C)x[i];
  }
  return buffer;
}

// Where a kernel writes elements for base[index...]: in place when they are stored as C, else `buffer` (then call
// store_row).
template <class C>
C* row_target(void* base, int32_t dtype, int64_t index, C* buffer) {
  return dtype == native_dtype<C>() ? static_cast<C*>(base) + index : buffer;
}

template <class C>
void store_row(void* base, int32_t dtype, int64_t index, int64_t n, const C* row) {
  if (dtype == native_dtype<C>()) {
    C* y = static_cast<C*>(base) + index;
    if (y != row) std::memcpy(y, row, (size_t)n * sizeof(C));
  } else if (dtype == RCM_BF16) {
    bf16* y = static_cast<bf16*>(base) + index;
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) y[i] = from_float<bf16>(row[i]);
  } else if (dtype == RCM_F16) {
    f16* y = static_cast<f16*>(base) + index;
    for (int64_t i = 0; i < n; ++i) y[i] = from_float<f16>(row[i]);
  } else if (dtype == RCM_F32) {
    float* y = static_cast<float*>(base) + index;
    for (int64_t i = 0; i < n; ++i) y[i] = (float)row[i];
  } else {
    double* y = static_cast<double*>(base) + index;
    for (int64_t i = 0; i < n; ++i) y[i] = (double)row[i];
  }
}

}  // namespace rcm
