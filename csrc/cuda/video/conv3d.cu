#include <cstdlib>

#include "cuda/conv/conv.cuh"

using namespace rcm;

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
        // A row of the 2x2 kernel of parity q gathers the rows 0 | 1 2 (q = 0) or 0 1 | 2 (q = 1) of the 3x3 one.
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

// RCM_CONV=generic leaves the sm_90a kernels out (tests compare the two).
bool hopper_allowed() {
  const char* choice = std::getenv("RCM_CONV");
  return !choice || std::strcmp(choice, "generic") != 0;
}

}  // namespace

rcm_status rcm_conv3d_pack(const void* w, void* p, int64_t O, int64_t I, int64_t Ip, int64_t kt, int64_t k, int32_t upsample, int32_t w_dtype,
                           int32_t p_dtype) {
  return gpu_call("conv3d_pack", [&] {
    need(w, "w");
    need(p, "p");
    size_at_least(O, 0, "O");
    size_at_least(I, 1, "I");
    size_at_least(Ip, I, "Ip");
    if (kt < 1 || k < 1 || kt > 9 || k > 9) fail(RCM_E_SHAPE, "kernel: want 1 to 9");
    if (upsample && (kt != 1 || k != 3)) fail(RCM_E_SHAPE, "upsample: want kernel 1x3x3");
    const int volume = (int)(kt * k * k);
    const int64_t n = (upsample ? 16 : volume) * O * Ip, blocks = ceil_div(n, 256), most = (int64_t)gpu().sms * 32;
    with_dtypes(w_dtype, p_dtype, "w, p", [&](auto a, auto z) {
      using A = decltype(a);
      using Z = decltype(z);
      if (n == 0) return;
      queue_kernel(pack_kernel<A, Z>, (unsigned)(blocks < most ? blocks : most), 256, 0, static_cast<const A*>(w), static_cast<Z*>(p), O, I, Ip, volume,
                   upsample ? 1 : 0, n);
    });
  });
}

rcm_status rcm_conv3d(const void* x, const void* past, const void* w, const void* b, const void* r, void* y, const int64_t* geometry, int32_t dtype,
                      int32_t b_dtype) {
  return gpu_call("conv3d", [&] {
    const ConvShape g = conv_shape(geometry);
    same_kind(dtype, dtype == RCM_F64, "dtype");
    same_kind(b_dtype, dtype == RCM_F64, "b_dtype");
    if (g.pixels() * g.O == 0) return;
    need(x, "x");
    need(w, "w");
    need(y, "y");
    if (g.P > 0) need(past, "past");
    const ConvCall call{x, past, w, b, r, y, dtype, b_dtype};
    if (hopper_allowed() && conv_hopper(g, call)) return;
    conv_generic(g, call);
  });
}
