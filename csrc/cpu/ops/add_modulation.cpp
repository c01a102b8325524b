#include "cpu/runtime/common.h"

using namespace rcm;

namespace {

void check(int64_t B, int64_t S, int64_t Se, int64_t D, int32_t dtype) {
  size_at_least(B, 0, "B");
  size_at_least(S, 0, "S");
  size_at_least(D, 0, "D");
  if (Se != 1 && Se != S) fail(RCM_E_SHAPE, "Se: want 1 or %lld, got %lld", (long long)S, (long long)Se);
  if (dtype != RCM_F32 && dtype != RCM_F64) fail(RCM_E_DTYPE, "e: want f32 or f64, got code %d", dtype);
}

// y = [p] + e.
template <class C>
void sum(const void* p, const C* e, C* y, int64_t B, int64_t S, int64_t Se, int64_t D, int32_t p_dtype) {
  parallel_for(B * S, 64, [&](int64_t from, int64_t to, int) {
    for (int64_t r = from; r < to; ++r) {
      const C* in = e + (Se == 1 ? r / S : r) * D;
      const C* w = p ? load_row<C>(p, p_dtype, r % S * D, D, scratch<C>(0, D)) : nullptr;
      C* out = y + r * D;
#pragma omp simd
      for (int64_t i = 0; i < D; ++i) out[i] = (w ? w[i] : 0) + in[i];
    }
  });
}

int32_t param_dtype(int32_t p_dtype, int32_t dtype) {
  if ((p_dtype == RCM_F64) != (dtype == RCM_F64)) fail(RCM_E_DTYPE, "p: f64 does not mix with other dtypes");
  if (p_dtype < RCM_F32 || p_dtype > RCM_F64) fail(RCM_E_DTYPE, "p: want f32, bf16, f16 or f64, got code %d", p_dtype);
  return p_dtype;
}

}  // namespace

rcm_status rcm_add_modulation_fwd(const void* p, const void* e, void* y, int64_t B, int64_t S, int64_t Se, int64_t D, int32_t p_dtype, int32_t dtype) {
  return guard("add_modulation_fwd", [&] {
    need(p, "p");
    need(e, "e");
    need(y, "y");
    check(B, S, Se, D, dtype);
    with_compute({dtype}, [&](auto zero) {
      using C = decltype(zero);
      sum<C>(p, static_cast<const C*>(e), static_cast<C*>(y), B, S, Se, D, param_dtype(p_dtype, dtype));
    });
  });
}

rcm_status rcm_add_modulation_jvp(const void* p, const void* e, const void* e_dot, void* y, void* y_dot, int64_t B, int64_t S, int64_t Se, int64_t D,
                                  int32_t p_dtype, int32_t dtype) {
  return guard("add_modulation_jvp", [&] {
    need(p, "p");
    need(e, "e");
    need(e_dot, "e_dot");
    need(y, "y");
    need(y_dot, "y_dot");
    check(B, S, Se, D, dtype);
    with_compute({dtype}, [&](auto zero) {
      using C = decltype(zero);
      sum<C>(p, static_cast<const C*>(e), static_cast<C*>(y), B, S, Se, D, param_dtype(p_dtype, dtype));
      sum<C>(nullptr, static_cast<const C*>(e_dot), static_cast<C*>(y_dot), B, S, Se, D, p_dtype);
    });
  });
}

rcm_status rcm_add_modulation_vjp(const void* y_bar, void* p_bar, void* e_bar, int64_t B, int64_t S, int64_t Se, int64_t D, int32_t p_dtype,
                                  int32_t dtype) {
  return guard("add_modulation_vjp", [&] {
    need(y_bar, "y_bar");
    check(B, S, Se, D, dtype);
    param_dtype(p_dtype, dtype);
    with_compute({dtype}, [&](auto zero) {
      using C = decltype(zero);
      const C* bar = static_cast<const C*>(y_bar);
      if (p_bar) {
        C* into = static_cast<C*>(p_bar);
        parallel_for(S * D, 256, [&](int64_t from, int64_t to, int) {
          for (int64_t i = from; i < to; ++i) {
            double sum = 0;
            for (int64_t b = 0; b < B; ++b) sum += (double)bar[b * S * D + i];
            into[i] += (C)sum;
          }
        });
      }
      if (!e_bar) return;
      C* out = static_cast<C*>(e_bar);
      if (Se == S) {
        std::memcpy(out, bar, (size_t)(B * S * D) * sizeof(C));
        return;
      }
      parallel_for(B, 16, [&](int64_t from, int64_t to, int) {
        for (int64_t b = from; b < to; ++b) {
          for (int64_t i = 0; i < D; ++i) {
            C sum = 0;
            for (int64_t s = 0; s < S; ++s) sum += bar[(b * S + s) * D + i];
            out[b * D + i] = sum;
          }
        }
      });
    });
  });
}
