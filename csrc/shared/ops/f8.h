// f8_e4m3 without infinities: sign, 4 exponent bits (bias 7), 3 mantissa bits; 0x7f and 0xff are NaN, the largest value
// is 448.
#pragma once
#include <cstring>

#include "shared/guard.h"
#include "shared/host_device.h"

namespace rcm {

RCM_BOTH inline uint32_t f32_bits(float v) {
  uint32_t bits;
  memcpy(&bits, &v, 4);
  return bits;
}
RCM_BOTH inline float f32_of(uint32_t bits) {
  float v;
  memcpy(&v, &bits, 4);
  return v;
}

// Rounds to nearest even; values beyond 448, infinity included, saturate; NaN stays NaN.
RCM_BOTH inline uint8_t f8_encode(float v) {
  const uint32_t bits = f32_bits(v), sign = (bits >> 24) & 0x80u, a = bits & 0x7fffffffu;
  // Floats near 2^14 are 2^-9 apart, the spacing of the subnormals: adding 2^14 rounds to a multiple of it.
  const uint32_t small = f32_bits(f32_of(a < 0x3c800000u ? a : 0u) + 16384.0f) - 0x46800000u;
  const uint32_t normal = ((a + 0x7ffffu + ((a >> 20) & 1u)) >> 20) - (120u << 3);
  const uint32_t code = a > 0x7f800000u ? 0x7fu : a >= 0x43e00000u ? 0x7eu : a < 0x3c800000u ? small : normal;
  return (uint8_t)(sign | code);
}

RCM_BOTH inline float f8_decode(uint8_t code) {
  const uint32_t sign = (uint32_t)(code & 0x80u) << 24, e = (code >> 3) & 15u, m = code & 7u;
  const float a = (code & 0x7fu) == 0x7fu ? f32_of(0x7fc00000u)
                  : e == 0u               ? (float)m * 0.001953125f
                                          : f32_of((e + 120u) << 23 | m << 20);
  return f32_of(f32_bits(a) | sign);
}

namespace f8 {

// `values` has a float dtype, `codes` one byte an element.
struct Encode {
  const void* values;
  void* codes;
  int64_t n;
  float scale;
  int32_t dtype;
};
struct Decode {
  const void* codes;
  void* values;
  int64_t n;
  float scale;
  int32_t dtype;
};

// Defined by each backend; the arguments have been checked.
void encode(const Encode& a);
void decode(const Decode& a);

}  // namespace f8
}  // namespace rcm
