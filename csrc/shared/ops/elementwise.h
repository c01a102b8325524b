// Element-wise helpers without derivative (cast, axpy, fill, sample_reduce): arguments and checks, the same for both
// backends.
#pragma once
#include "shared/guard.h"

namespace rcm::elementwise {

struct Cast {
  const void* src;
  void* dst;
  int64_t n;
  int32_t src_dtype, dst_dtype;
};
struct Axpy {
  const void* x;
  void* y;
  int64_t n;
  double a;
  int32_t x_dtype, y_dtype;
};
enum Reduction { kSum, kAbsolute, kSquares, kMax, kNotFinite };
struct Reduce {
  const void* x;
  double* out;
  int64_t B, N;
  int32_t kind, dtype;
};

// Defined by each backend; the arguments have been checked.
void cast(const Cast& a);
void axpy(const Axpy& a);
void fill(void* out, int64_t n, double value, int32_t dtype);
void sample_reduce(const Reduce& a);

}  // namespace rcm::elementwise
