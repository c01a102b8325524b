#include "blas.h"

#include <dlfcn.h>

#include <algorithm>

namespace rcm {
namespace {

Blas open_blas() {
  const char* forced = std::getenv("RCM_BLAS");
  if (forced && std::strcmp(forced, "none") == 0) return {"built-in", nullptr, nullptr};
  const char* names[] = {forced && *forced ? forced : "libopenblas.so.0",
                         "libopenblas.so.0",
                         "libopenblas.so",
                         "libmkl_rt.so.2",
                         "libmkl_rt.so",
                         "libblas.so.3"};
  for (const char* name : names) {
    void* lib = dlopen(name, RTLD_NOW | RTLD_LOCAL);
    if (lib == nullptr) continue;
    Blas b;
    b.name = name;
    b.sgemm = (Sgemm)dlsym(lib, "cblas_sgemm");
    b.dgemm = (Dgemm)dlsym(lib, "cblas_dgemm");
    if (b.sgemm == nullptr || b.dgemm == nullptr) continue;
    // This library splits the work itself; the BLAS must stay on the calling thread.
    if (auto set = (void (*)(int))dlsym(lib, "openblas_set_num_threads")) set(1);
    if (auto set = (int (*)(int))dlsym(lib, "MKL_Set_Num_Threads_Local")) set(1);
    if (auto config = (char* (*)())dlsym(lib, "openblas_get_config")) {
      b.name = config();
      b.name.erase(std::remove_if(b.name.begin(), b.name.end(),
                                  [](char c) { return c == '"' || c == '\\' || (unsigned char)c < 32; }),
                   b.name.end());
    }
    return b;
  }
  return {"built-in", nullptr, nullptr};
}

}  // namespace

const Blas& blas() {
  static const Blas b = open_blas();
  return b;
}

// Packs a panel of b, kWide columns wide, and multiplies it with groups of kTall rows of a, accumulating in registers.
template <class C>
void gemm_blocked(bool ta, bool tb, int64_t m, int64_t n, int64_t k, const C* a, int64_t lda, const C* b, int64_t ldb,
                  C beta, C* c, int64_t ldc) {
  constexpr int64_t kWide = 128 / sizeof(C), kTall = 6, kDeep = 256;
  C* panel = scratch<C>(kScratchSlots - 1, kDeep * kWide);
  C* left = scratch<C>(kScratchSlots - 2, kDeep * kTall);
  for (int64_t k0 = 0; k0 < std::max<int64_t>(k, 1); k0 += kDeep) {
    const int64_t depth = std::min(kDeep, k - k0);
    const C scale = k0 == 0 ? beta : (C)1;
    for (int64_t n0 = 0; n0 < n; n0 += kWide) {
      const int64_t wide = std::min(kWide, n - n0);
      for (int64_t p = 0; p < depth; ++p) {
        for (int64_t j = 0; j < kWide; ++j)
          panel[p * kWide + j] = j < wide ? (tb ? b[(n0 + j) * ldb + k0 + p] : b[(k0 + p) * ldb + n0 + j]) : (C)0;
      }
      for (int64_t m0 = 0; m0 < m; m0 += kTall) {
        const int64_t tall = std::min(kTall, m - m0);
        for (int64_t p = 0; p < depth; ++p) {
          for (int64_t i = 0; i < kTall; ++i)
            left[p * kTall + i] = i < tall ? (ta ? a[(k0 + p) * lda + m0 + i] : a[(m0 + i) * lda + k0 + p]) : (C)0;
        }
        C sum[kTall][kWide] = {};
        for (int64_t p = 0; p < depth; ++p) {
          for (int64_t i = 0; i < kTall; ++i) {
            const C x = left[p * kTall + i];
#pragma omp simd
            for (int64_t j = 0; j < kWide; ++j) sum[i][j] += x * panel[p * kWide + j];
          }
        }
        for (int64_t i = 0; i < tall; ++i) {
          C* row = c + (m0 + i) * ldc + n0;
          for (int64_t j = 0; j < wide; ++j) row[j] = (scale == 0 ? (C)0 : scale * row[j]) + sum[i][j];
        }
      }
    }
  }
}
template void gemm_blocked(bool, bool, int64_t, int64_t, int64_t, const float*, int64_t, const float*, int64_t, float,
                           float*, int64_t);
template void gemm_blocked(bool, bool, int64_t, int64_t, int64_t, const double*, int64_t, const double*, int64_t,
                           double, double*, int64_t);

namespace {
constexpr int kRowMajor = 101, kNoTrans = 111, kTrans = 112;
template <class C, class Fn>
void run(Fn fn, bool ta, bool tb, int64_t m, int64_t n, int64_t k, const C* a, int64_t lda, const C* b, int64_t ldb,
         C beta, C* c, int64_t ldc) {
  if (m <= 0 || n <= 0) return;
  if (fn == nullptr || k <= 0) return gemm_blocked(ta, tb, m, n, k, a, lda, b, ldb, beta, c, ldc);
  fn(kRowMajor, ta ? kTrans : kNoTrans, tb ? kTrans : kNoTrans, (int)m, (int)n, (int)k, (C)1, a, (int)lda, b, (int)ldb,
     beta, c, (int)ldc);
}
}  // namespace

void gemm(bool ta, bool tb, int64_t m, int64_t n, int64_t k, const float* a, int64_t lda, const float* b, int64_t ldb,
          float beta, float* c, int64_t ldc) {
  run<float>(blas().sgemm, ta, tb, m, n, k, a, lda, b, ldb, beta, c, ldc);
}
void gemm(bool ta, bool tb, int64_t m, int64_t n, int64_t k, const double* a, int64_t lda, const double* b, int64_t ldb,
          double beta, double* c, int64_t ldc) {
  run<double>(blas().dgemm, ta, tb, m, n, k, a, lda, b, ldb, beta, c, ldc);
}

}  // namespace rcm
