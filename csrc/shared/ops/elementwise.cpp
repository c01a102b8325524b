#include "shared/ops/elementwise.h"

using namespace rcm;

rcm_status rcm_cast(const void* src, void* dst, int64_t n, int32_t src_dtype, int32_t dst_dtype) {
  return op_call("cast", [&] {
    need(src, "src");
    need(dst, "dst");
    size_at_least(n, 0, "n");
    float_dtype(src_dtype, "src_dtype");
    float_dtype(dst_dtype, "dst_dtype");
    elementwise::cast({src, dst, n, src_dtype, dst_dtype});
  });
}

rcm_status rcm_axpy(const void* x, void* y, int64_t n, double a, int32_t x_dtype, int32_t y_dtype) {
  return op_call("axpy", [&] {
    need(x, "x");
    need(y, "y");
    size_at_least(n, 0, "n");
    float_dtype(x_dtype, "x_dtype");
    float_dtype(y_dtype, "y_dtype");
    elementwise::axpy({x, y, n, a, x_dtype, y_dtype});
  });
}

rcm_status rcm_fill(void* out, int64_t n, double value, int32_t dtype) {
  return op_call("fill", [&] {
    need(out, "out");
    size_at_least(n, 0, "n");
    float_dtype(dtype, "dtype");
    elementwise::fill(out, n, value, dtype);
  });
}

rcm_status rcm_sample_reduce(const void* x, double* out, int64_t B, int64_t N, int32_t kind, int32_t dtype) {
  return op_call("sample_reduce", [&] {
    need(x, "x");
    need(out, "out");
    size_at_least(B, 0, "B");
    size_at_least(N, 0, "N");
    float_dtype(dtype, "dtype");
    if (kind < elementwise::kSum || kind > elementwise::kNotFinite) fail(RCM_E_ARG, "kind: want 0 to 4, got %d", kind);
    elementwise::sample_reduce({x, out, B, N, kind, dtype});
  });
}
