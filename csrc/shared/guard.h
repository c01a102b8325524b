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

// Runs the body of an ABI function; nothing leaves it but a status.
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

inline void need(const void* p, const char* name) {
  if (p == nullptr) fail(RCM_E_ARG, "%s: want memory, got null", name);
}
inline void size_at_least(int64_t v, int64_t least, const char* name) {
  if (v < least) fail(RCM_E_SHAPE, "%s: want at least %lld, got %lld", name, (long long)least, (long long)v);
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
