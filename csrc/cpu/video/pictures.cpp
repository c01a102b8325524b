// rcm_pixels: planes of values in [-1, 1] to interleaved bytes.
#include "cpu/runtime/common.h"
#include "shared/ops/video.h"

namespace rcm::video {
namespace {

inline uint8_t level(double v) {
  const double scaled = (v + 1) * 127.5;
  if (!(scaled > 0)) return 0;  // also NaN
  return scaled >= 255 ? 255 : (uint8_t)std::nearbyint(scaled);
}

}  // namespace

void pixels(const Pixels& a) {
  const int64_t C = a.C, N = a.N;
  with_dtype(a.dtype, "dtype", [&](auto zero) {
    const auto* from = static_cast<const decltype(zero)*>(a.x);
    for (int64_t b = 0; b < a.B; ++b) {
      parallel_for(N, 1 << 14, [&](int64_t first, int64_t last, int) {
        for (int64_t c = 0; c < C; ++c) {
          const auto* plane = from + (b * C + c) * N;
          uint8_t* to = static_cast<uint8_t*>(a.out) + b * N * C + c;
          for (int64_t i = first; i < last; ++i) to[i * C] = level((double)to_float(plane[i]));
        }
      });
    }
  });
}

}  // namespace rcm::video
