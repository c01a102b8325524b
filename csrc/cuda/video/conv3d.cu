#include <cstdlib>

#include "cuda/conv/conv.cuh"

namespace rcm::conv3d {
namespace {

template <class A, class Z>
__global__ void pack_kernel(const A* w, Z* p, int64_t O, int64_t I, int64_t Ip, int volume, int upsample, int64_t n) {
  await_queued();
  using C = compute_t<Z>;
  for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += (int64_t)gridDim.x * blockDim.x) {
    const int64_t c = i % Ip, o = i / Ip % O;
    const int slice = (int)(i / (Ip * O));
    C sum = 0;
    if (c < I) {
      const A* kernel = w + (o * I + c) * volume;
      if (!upsample) {
        sum = (C)load_as(kernel[slice]);
      } else {
        // Parity q of the output: row e of the 2x2 kernel sums rows {0}, {1,2} (q = 0) or {0,1}, {2} (q = 1) of the 3x3
        // one.
        const int py = slice / 8, px = slice / 4 % 2, ey = slice / 2 % 2, ex = slice % 2;
        for (int dy = 0; dy < 3; ++dy) {
          for (int dx = 0; dx < 3; ++dx) {
            if ((dy + 1 - py) / 2 == ey && (dx + 1 - px) / 2 == ex) sum += (C)load_as(kernel[dy * 3 + dx]);
          }
        }
      }
    }
    p[i] = store_as<Z>(sum);
  }
}

// RCM_CONV=generic rules out the sm_90a kernels, so that tests can compare the two.
bool hopper_allowed() {
  const char* choice = std::getenv("RCM_CONV");
  return !choice || std::strcmp(choice, "generic") != 0;
}

}  // namespace

void pack(const Pack& a) {
  const int volume = (int)(a.kt * a.k * a.k);
  const int64_t n = (a.upsample ? 16 : volume) * a.O * a.Ip, blocks = ceil_div(n, 256), most = (int64_t)gpu().sms * 32;
  with_dtypes(a.w_dtype, a.p_dtype, "w, p", [&](auto w, auto p) {
    using A = decltype(w);
    using Z = decltype(p);
    if (n == 0) return;
    queue_kernel(pack_kernel<A, Z>, (unsigned)(blocks < most ? blocks : most), 256, 0, static_cast<const A*>(a.w),
                 static_cast<Z*>(a.p), a.O, a.I, a.Ip, volume, a.upsample ? 1 : 0, n);
  });
}

void convolve(const Call& c, const ConvShape& g) {
  if (hopper_allowed() && conv_hopper(g, c)) return;
  conv_generic(g, c);
}

}  // namespace rcm::conv3d
