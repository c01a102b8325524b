// rcm_pixels: planes of values in [-1, 1] to interleaved bytes.
#include "cpu/runtime/common.h"

using namespace rcm;

namespace {

inline uint8_t level(double v) {
  const double scaled = (v + 1) * 127.5;
  if (!(scaled > 0)) return 0;  // also NaN
  return scaled >= 255 ? 255 : (uint8_t)std::nearbyint(scaled);
}

template <class T>
void pixels(const void* x, uint8_t* out, int64_t B, int64_t C, int64_t N) {
  const T* from = static_cast<const T*>(x);
  for (int64_t b = 0; b < B; ++b) {
    parallel_for(N, 1 << 14, [&](int64_t first, int64_t last, int) {
      for (int64_t c = 0; c < C; ++c) {
        const T* plane = from + (b * C + c) * N;
        uint8_t* to = out + b * N * C + c;
        for (int64_t i = first; i < last; ++i) {
          if constexpr (std::is_same<T, double>::value) to[i * C] = level(plane[i]);
          else to[i * C] = level((double)to_float(plane[i]));
        }
      }
    });
  }
}

}  // namespace

rcm_status rcm_pixels(const void* x, void* out, int64_t B, int64_t C, int64_t N, int32_t dtype) {
  return guard("pixels", [&] {
    need(x, "x");
    need(out, "out");
    size_at_least(B, 0, "B");
    size_at_least(C, 0, "C");
    size_at_least(N, 0, "N");
    uint8_t* to = static_cast<uint8_t*>(out);
    switch (dtype) {
      case RCM_F32: return pixels<float>(x, to, B, C, N);
      case RCM_F64: return pixels<double>(x, to, B, C, N);
      case RCM_BF16: return pixels<bf16>(x, to, B, C, N);
      case RCM_F16: return pixels<f16>(x, to, B, C, N);
      default: fail(RCM_E_DTYPE, "dtype: want f32, bf16, f16 or f64, got code %d", dtype);
    }
  });
}
