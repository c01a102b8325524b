// Shared by both backends: failures, the guard around every ABI function, argument checks.
#pragma once
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <new>
#include <string>

#include "include/rcm.h"

namespace rcm {

struct Failure {
  int32_t code;
  std::string text;
};

[[noreturn]] inline void fail(int32_t code, const char* format, ...) {
  char text[512];
  va_list args;
  va_start(args, format);
  std::vsnprintf(text, sizeof text, format, args);
  va_end(args);
  throw Failure{code, text};
}

void set_last_error(const char* op, const char* text);

// Runs the body of an ABI function and turns every exception into a status code.
template <class Body>
rcm_status guard(const char* op, Body&& body) noexcept {
  try {
    body();
    return RCM_OK;
  } catch (const Failure& f) {
    set_last_error(op, f.text.c_str());
    return f.code;
  } catch (const std::bad_alloc&) {
    set_last_error(op, "host memory exhausted");
    return RCM_E_OOM;
  } catch (const std::exception& e) {
    set_last_error(op, e.what());
    return RCM_E_INTERNAL;
  } catch (...) {
    set_last_error(op, "unknown failure");
    return RCM_E_INTERNAL;
  }
}

// Provided by each backend and called around the body of every op: on a GPU they select the device and report launch
// errors.
void begin_op();
void end_op();

// Body of an ABI function that computes something (shared/ops/*.cpp, and the ops without derivatives).
template <class Body>
rcm_status op_call(const char* op, Body&& body) noexcept {
  return guard(op, [&] {
    begin_op();
    body();
    end_op();
  });
}

inline void need(const void* p, const char* name) {
  if (p == nullptr) fail(RCM_E_ARG, "%s: want memory, got null", name);
}
inline void size_at_least(int64_t v, int64_t least, const char* name) {
  if (v < least) fail(RCM_E_SHAPE, "%s: want at least %lld, got %lld", name, (long long)least, (long long)v);
}

inline void float_dtype(int32_t dtype, const char* name) {
  if (dtype < RCM_F32 || dtype > RCM_F64) fail(RCM_E_DTYPE, "%s: want f32, bf16, f16 or f64, got code %d", name, dtype);
}
// f64 is not mixed with the other float dtypes in one call; `doubles` says whether the call's main dtype is f64.
inline void same_kind(int32_t dtype, bool doubles, const char* name) {
  float_dtype(dtype, name);
  if ((dtype == RCM_F64) != doubles) fail(RCM_E_DTYPE, "%s: f64 does not mix with other dtypes", name);
}

inline int64_t dtype_bytes(int32_t dtype) {
  switch (dtype) {
    case RCM_F64:
    case RCM_I64: return 8;
    case RCM_F32:
    case RCM_I32: return 4;
    case RCM_BF16:
    case RCM_F16: return 2;
    default: return 1;
  }
}

}  // namespace rcm
