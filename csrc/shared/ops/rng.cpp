#include "shared/ops/rng.h"

using namespace rcm;

rcm_status rcm_randn(void* out, int64_t rows, int64_t n, int64_t seed, int64_t stream, int64_t stream_step,
                     int64_t offset, int32_t dtype) {
  return op_call("randn", [&] {
    need(out, "out");
    size_at_least(rows, 0, "rows");
    size_at_least(n, 0, "n");
    if (offset % 4 != 0) fail(RCM_E_ARG, "offset: want a multiple of 4, got %lld", (long long)offset);
    const uint64_t first_block = (uint64_t)(offset / 4);
    rng::normals({out, rows, n, (uint64_t)seed, (uint64_t)stream, (uint64_t)stream_step, first_block, dtype});
  });
}
