/* rcm.h: the interface between core (TypeScript, through bun:ffi) and the native backends.
 *
 * librcm_cpu.so and librcm_cuda.so both implement every function below. ffi/gen.ts reads this file, writes
 * ffi/rcm.gen.ts, and refuses any type that is not listed here. Every op has one declaration form:
 *     rcm_status rcm_<op>_<verb>(<inputs>, <outputs>, <scalars>);
 *
 * Conventions
 *  - Types: int32_t, int64_t, double, and pointers to memory. RCM_OPT marks a pointer that may be null, RCM_HOST a
 *    pointer to host memory; all other pointers are device memory (on the CPU backend both are the same).
 *  - Every function returns 0 or an RCM_E_* code; rcm_last_error() then has the text, per thread.
 *  - Verbs: _fwd computes the outputs and what the vjp needs ("saved"). _jvp computes the same and the tangent y_dot
 *    of the outputs in one pass; its primal is bitwise that of _fwd, except bf16 and f16 attention on a GPU, where it
 *    agrees within rounding. _vjp maps the cotangent y_bar of the outputs to those of the inputs. A null tangent
 *    input is zero; a null cotangent output is not computed.
 *  - Cotangents of parameters (w_bar, b_bar, p_bar) and of modulation vectors (shift_bar, scale_bar, gate_bar)
 *    accumulate (+=); cotangents of activations overwrite.
 *  - Tensors are contiguous and row-major unless strides are given. Letters: B batch, L tokens, M rows (B*L), D model
 *    width, H heads, K head width, N columns, C channels, T frames, Y rows of a picture, X columns.
 *  - The "stat" dtype of a call is f64 when its main dtype is f64, else f32. Norm statistics, lse, modulation
 *    vectors, rope tables and parameter cotangents have it. Reductions accumulate in f32 or better on the GPU; on the
 *    CPU in f64 where the result is one number per row, sample or tensor.
 *  - Float dtypes are f32, bf16, f16 and f64. Unless a section allows it, f64 is not mixed with the others.
 *  - Sizes of zero are allowed; the call then does nothing. Inputs and outputs must not overlap unless a section
 *    allows it.
 *  - On a GPU calls are queued on one stream in call order; rcm_sync and copies to the host wait for it.
 *  - Errors of every function: RCM_E_ARG for a null pointer that may not be null or a scalar out of range,
 *    RCM_E_SHAPE for sizes, RCM_E_DTYPE for dtypes, RCM_E_OOM for memory, RCM_E_BACKEND for failures of the GPU or its
 *    libraries. Sections name only what differs.
 */
#ifndef RCM_H
#define RCM_H
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(_WIN32)
#define RCM_API __declspec(dllexport)
#else
#define RCM_API __attribute__((visibility("default")))
#endif
#define RCM_OPT
#define RCM_HOST

typedef int32_t rcm_status;
enum {
  RCM_OK = 0,
  RCM_E_ARG = 1,
  RCM_E_SHAPE = 2,
  RCM_E_DTYPE = 3,
  RCM_E_OOM = 4,
  RCM_E_BACKEND = 5,
  RCM_E_INTERNAL = 6,
  RCM_E_IO = 7
};
/* rcm_dtype */
enum { RCM_F32 = 0, RCM_BF16 = 1, RCM_F16 = 2, RCM_F64 = 3, RCM_I32 = 4, RCM_I64 = 5, RCM_U8 = 6, RCM_BOOL = 7 };

/* ---- runtime ------------------------------------------------------------------------------------------------- */
/* Text of the last failure on this thread. Never null. */
RCM_API const char* rcm_last_error(void);
/* out[0] = hash of the header that the library was built from (see ffi/gen.ts). */
RCM_API rcm_status rcm_abi_hash(RCM_HOST int64_t* out);
/* Selects the device (a GPU index; ignored on the CPU) and the number of host threads (0: all that the process may
 * use). */
RCM_API rcm_status rcm_init(int32_t device_index, int32_t threads);
/* Writes a zero-terminated JSON object {backend, device, isa, threads, blas, ...} of at most `capacity` bytes. */
RCM_API rcm_status rcm_runtime_info(RCM_HOST char* out, int64_t capacity);
/* Waits for all queued work. */
RCM_API rcm_status rcm_sync(void);
/* How f32 tensors are multiplied from now on, process-wide. 0: in f32. 1: on a GPU, linear and the attention forward
 * and tangent (head widths up to 128) may represent each f32 factor by two bf16 numbers and form three products
 * instead of one: errors near 1e-5 of the largest value, at many times the speed. bf16 factors are used as they are.
 * The CPU always computes in f32. */
RCM_API rcm_status rcm_f32_products(int32_t mode);
/* Whether equal inputs must give equal bits in every run, from now on, process-wide. 1 (the default): yes. 0: a GPU
 * may use faster kernels whose order of summation varies (cuDNN's attention backward). The CPU is always
 * deterministic. */
RCM_API rcm_status rcm_deterministic(int32_t mode);

/* ---- memory -------------------------------------------------------------------------------------------------- */
/* out[0] = address of `bytes` of uninitialised device memory, 256-byte aligned, from a caching allocator. The text of
 * RCM_E_OOM names the request and the memory in use. */
RCM_API rcm_status rcm_alloc(RCM_HOST int64_t* out, int64_t bytes);
/* RCM_E_ARG if the memory is not from rcm_alloc or was freed before. */
RCM_API rcm_status rcm_free(RCM_OPT void* memory);
/* Returns unused cached memory to the system. */
RCM_API rcm_status rcm_memory_trim(void);
/* out[0..5] = bytes in use, their peak, bytes reserved, their peak, allocations so far, blocks in use. */
RCM_API rcm_status rcm_memory_stats(RCM_HOST int64_t* out);
/* Sets both peaks to the current values. */
RCM_API rcm_status rcm_memory_reset_peak(void);
/* kind 0: host to device, returns when src may be reused; 1: device to host, returns when dst is complete; 2: device to
 * device. */
RCM_API rcm_status rcm_copy(void* dst, const void* src, int64_t bytes, int32_t kind);
RCM_API rcm_status rcm_zero(void* dst, int64_t bytes);

/* ---- nondiff: element-wise helpers --------------------------------------------------------------------------- */
/* dst[i] = src[i] converted to dst_dtype, rounded to nearest even. Any two float dtypes. */
RCM_API rcm_status rcm_cast(const void* src, void* dst, int64_t n, int32_t src_dtype, int32_t dst_dtype);
/* y[i] += a * x[i]. Any two float dtypes. */
RCM_API rcm_status rcm_axpy(const void* x, void* y, int64_t n, double a, int32_t x_dtype, int32_t y_dtype);
/* out[i] = value. */
RCM_API rcm_status rcm_fill(void* out, int64_t n, double value, int32_t dtype);
/* Reduces each sample of x [B,N] to out [B]: kind 0 sum, 1 sum of |x|, 2 sum of squares, 3 max |x| (NaN if any is NaN),
 * 4 number of values that are not finite. */
RCM_API rcm_status rcm_sample_reduce(const void* x, double* out, int64_t B, int64_t N, int32_t kind, int32_t dtype);

/* ---- nondiff: random numbers --------------------------------------------------------------------------------- */
/* Standard normal numbers by Philox4x32-10, key = seed, counter = (offset / 4 + block, stream); out [rows,n]. Row r
 * draws from the stream `stream + r * stream_step`, and its element i depends only on (seed, that stream, offset + i);
 * offset is a multiple of 4. The words r0..r3 of a block give u_j = (r_j + 0.5) / 2^32 and, by Box-Muller in f64,
 * sqrt(-2 ln u0) (cos, sin)(2 pi u1) and sqrt(-2 ln u2) (cos, sin)(2 pi u3). */
RCM_API rcm_status rcm_randn(void* out, int64_t rows, int64_t n, int64_t seed, int64_t stream, int64_t stream_step,
                             int64_t offset, int32_t dtype);

/* ---- nondiff: optimizer -------------------------------------------------------------------------------------- */
/* One AdamW step (decoupled weight decay) over a flat buffer of n elements, fused with the exponential moving average:
 *   g' = g * grad_scale
 *   m = beta1 m + (1 - beta1) g';  v = beta2 v + (1 - beta2) g'^2
 *   w = w - lr * wd * w - lr * (m / bias1) / (sqrt(v / bias2) + eps);  ema = ema_beta ema + (1 - ema_beta) w
 * bias1 = 1 - beta1^t with t counted from 1, bias2 likewise. w is `master` (f32) when given, then rounded to `param`;
 * else `param` itself, which must be f32. grad, m, v, ema: f32. m may be null when beta1 = 0 (then m = g'); ema may be
 * null. */
RCM_API rcm_status rcm_adamw(void* param, RCM_OPT void* master, const void* grad, RCM_OPT void* m, void* v,
                             RCM_OPT void* ema, int64_t n, double lr, double beta1, double beta2, double eps,
                             double weight_decay, double bias1, double bias2, double grad_scale, double ema_beta,
                             int32_t param_dtype);

/* ---- add ----------------------------------------------------------------------------------------------------- */
/* y = a + b. vjp: a_bar = b_bar = y_bar. core passes y_bar on instead of calling _vjp, which copies. */
RCM_API rcm_status rcm_add_fwd(const void* a, const void* b, void* y, int64_t n, int32_t dtype);
RCM_API rcm_status rcm_add_jvp(const void* a, const void* b, RCM_OPT const void* a_dot, RCM_OPT const void* b_dot,
                               void* y, void* y_dot, int64_t n, int32_t dtype);
RCM_API rcm_status rcm_add_vjp(const void* y_bar, RCM_OPT void* a_bar, RCM_OPT void* b_bar, int64_t n, int32_t dtype);

/* ---- lincomb ------------------------------------------------------------------------------------------------- */
/* y[b,:] = sum over i < terms of coef[i,b] x_i[b,:], 1 <= terms <= 4; x_i, y [B,N]; coef f64 [terms,B] on the device.
 * Null x_i are zero. The sum is formed in f64 on the CPU, in f32 or better on the GPU. jvp: y_dot = sum of coef
 * x_i_dot + coef_dot x_i. vjp of one term: x_bar = coef[term,b] y_bar; coef has no cotangent. */
RCM_API rcm_status rcm_lincomb_fwd(RCM_OPT const void* x0, RCM_OPT const void* x1, RCM_OPT const void* x2,
                                   RCM_OPT const void* x3, const double* coef, void* y, int64_t B, int64_t N,
                                   int32_t terms, int32_t dtype);
RCM_API rcm_status rcm_lincomb_jvp(RCM_OPT const void* x0, RCM_OPT const void* x1, RCM_OPT const void* x2,
                                   RCM_OPT const void* x3, RCM_OPT const void* x0_dot, RCM_OPT const void* x1_dot,
                                   RCM_OPT const void* x2_dot, RCM_OPT const void* x3_dot, const double* coef,
                                   RCM_OPT const double* coef_dot, void* y, void* y_dot, int64_t B, int64_t N,
                                   int32_t terms, int32_t dtype);
RCM_API rcm_status rcm_lincomb_vjp(const void* y_bar, const double* coef, void* x_bar, int64_t B, int64_t N,
                                   int32_t term, int32_t dtype);

/* ---- activation ---------------------------------------------------------------------------------------------- */
/* y = f(x) for n elements; kind 0 GELU (tanh form), 1 GELU (erf form), 2 SiLU, 3 tanh. x_bar may be y_bar. */
RCM_API rcm_status rcm_activation_fwd(const void* x, void* y, int64_t n, int32_t kind, int32_t dtype);
RCM_API rcm_status rcm_activation_jvp(const void* x, const void* x_dot, void* y, void* y_dot, int64_t n, int32_t kind,
                                      int32_t dtype);
RCM_API rcm_status rcm_activation_vjp(const void* x, const void* y_bar, void* x_bar, int64_t n, int32_t kind,
                                      int32_t dtype);

/* ---- linear -------------------------------------------------------------------------------------------------- */
/* y[M,N] = x[M,K] w[N,K]^T + b[N]; b may be null. x, w (with b) and y may have different float dtypes. Accumulates in
 * f32 (f64 for f64). Parameters have no tangent: y_dot = x_dot w^T. vjp: x_bar = y_bar w; w_bar += y_bar^T x; b_bar +=
 * column sums of y_bar; w_bar, b_bar in stat dtype. */
RCM_API rcm_status rcm_linear_fwd(const void* x, const void* w, RCM_OPT const void* b, void* y, int64_t M, int64_t N,
                                  int64_t K, int32_t x_dtype, int32_t w_dtype, int32_t y_dtype);
RCM_API rcm_status rcm_linear_jvp(const void* x, const void* w, RCM_OPT const void* b, const void* x_dot, void* y,
                                  void* y_dot, int64_t M, int64_t N, int64_t K, int32_t x_dtype, int32_t w_dtype,
                                  int32_t y_dtype);
RCM_API rcm_status rcm_linear_vjp(RCM_OPT const void* x, const void* w, const void* y_bar, RCM_OPT void* x_bar,
                                  RCM_OPT void* w_bar, RCM_OPT void* b_bar, int64_t M, int64_t N, int64_t K,
                                  int32_t x_dtype, int32_t w_dtype, int32_t y_dtype);

/* ---- linear_gelu --------------------------------------------------------------------------------------------- */
/* h = x w^T + b; y = f(h), with shapes as in linear and `kind` as in activation. h [M,N] (y_dtype) is saved for the
 * vjp and may be null when no vjp follows. y_dot = f'(h) (x_dot w^T). vjp: scratch [M,N] (y_dtype) receives h_bar =
 * f'(h) y_bar and may be y_bar itself; the rest as in linear. */
RCM_API rcm_status rcm_linear_gelu_fwd(const void* x, const void* w, RCM_OPT const void* b, RCM_OPT void* h, void* y,
                                       int64_t M, int64_t N, int64_t K, int32_t kind, int32_t x_dtype, int32_t w_dtype,
                                       int32_t y_dtype);
RCM_API rcm_status rcm_linear_gelu_jvp(const void* x, const void* w, RCM_OPT const void* b, const void* x_dot,
                                       RCM_OPT void* h, void* y, void* y_dot, int64_t M, int64_t N, int64_t K,
                                       int32_t kind, int32_t x_dtype, int32_t w_dtype, int32_t y_dtype);
RCM_API rcm_status rcm_linear_gelu_vjp(RCM_OPT const void* x, const void* w, const void* h, const void* y_bar,
                                       void* scratch, RCM_OPT void* x_bar, RCM_OPT void* w_bar, RCM_OPT void* b_bar,
                                       int64_t M, int64_t N, int64_t K, int32_t kind, int32_t x_dtype, int32_t w_dtype,
                                       int32_t y_dtype);

/* ---- layer_norm ---------------------------------------------------------------------------------------------- */
/* y = (x - mean) rstd * w + b over the last axis of x [M,N], rstd = (variance + eps)^-1/2. w, b [N] of w_dtype; both
 * may be null. mean, rstd: stat [M], saved. */
RCM_API rcm_status rcm_layer_norm_fwd(const void* x, RCM_OPT const void* w, RCM_OPT const void* b, void* y, void* mean,
                                      void* rstd, int64_t M, int64_t N, double eps, int32_t x_dtype, int32_t w_dtype,
                                      int32_t y_dtype);
RCM_API rcm_status rcm_layer_norm_jvp(const void* x, RCM_OPT const void* w, RCM_OPT const void* b, const void* x_dot,
                                      void* y, void* y_dot, void* mean, void* rstd, int64_t M, int64_t N, double eps,
                                      int32_t x_dtype, int32_t w_dtype, int32_t y_dtype);
RCM_API rcm_status rcm_layer_norm_vjp(const void* x, RCM_OPT const void* w, const void* mean, const void* rstd,
                                      const void* y_bar, RCM_OPT void* x_bar, RCM_OPT void* w_bar, RCM_OPT void* b_bar,
                                      int64_t M, int64_t N, int32_t x_dtype, int32_t w_dtype, int32_t y_dtype);

/* ---- ada_layer_norm ------------------------------------------------------------------------------------------ */
/* y[b,l,:] = (x - mean) rstd * (1 + scale[b,:]) + shift[b,:]; x, y [B,L,D]. shift, scale: stat [B,D] with `mod_stride`
 * elements between samples (slots of a [B,S,D] modulation tensor); shift_bar, scale_bar have the same stride. mean,
 * rstd: stat [B,L], saved. */
RCM_API rcm_status rcm_ada_layer_norm_fwd(const void* x, const void* shift, const void* scale, void* y, void* mean,
                                          void* rstd, int64_t B, int64_t L, int64_t D, int64_t mod_stride, double eps,
                                          int32_t x_dtype, int32_t y_dtype);
RCM_API rcm_status rcm_ada_layer_norm_jvp(const void* x, const void* shift, const void* scale,
                                          RCM_OPT const void* x_dot, RCM_OPT const void* shift_dot,
                                          RCM_OPT const void* scale_dot, void* y, void* y_dot, void* mean, void* rstd,
                                          int64_t B, int64_t L, int64_t D, int64_t mod_stride, double eps,
                                          int32_t x_dtype, int32_t y_dtype);
RCM_API rcm_status rcm_ada_layer_norm_vjp(const void* x, const void* scale, const void* mean, const void* rstd,
                                          const void* y_bar, RCM_OPT void* x_bar, RCM_OPT void* shift_bar,
                                          RCM_OPT void* scale_bar, int64_t B, int64_t L, int64_t D, int64_t mod_stride,
                                          int32_t x_dtype, int32_t y_dtype);

/* ---- rms_norm_rope ------------------------------------------------------------------------------------------- */
/* u = x rstd * w with rstd = (mean of x^2 over `group` + eps)^-1/2; x, y [B,L,D]; w [group] of w_dtype. group is D
 * (Wan: the whole width) or K (Cosmos: one head). Then a rotary embedding of each head of width K, with tables cos,
 * sin: stat [L,K/2], null when rope is 0. rope 0: none; 1: pairs (2i, 2i+1); 2: pairs (i, i + K/2). A pair (a, b)
 * becomes (a cos - b sin, a sin + b cos). rstd: stat [B*L*D/group], saved. */
RCM_API rcm_status rcm_rms_norm_rope_fwd(const void* x, const void* w, RCM_OPT const void* cos, RCM_OPT const void* sin,
                                         void* y, void* rstd, int64_t B, int64_t L, int64_t D, int64_t K, int64_t group,
                                         int32_t rope, double eps, int32_t x_dtype, int32_t w_dtype, int32_t y_dtype);
RCM_API rcm_status rcm_rms_norm_rope_jvp(const void* x, const void* w, RCM_OPT const void* cos, RCM_OPT const void* sin,
                                         const void* x_dot, void* y, void* y_dot, void* rstd, int64_t B, int64_t L,
                                         int64_t D, int64_t K, int64_t group, int32_t rope, double eps, int32_t x_dtype,
                                         int32_t w_dtype, int32_t y_dtype);
RCM_API rcm_status rcm_rms_norm_rope_vjp(const void* x, const void* w, RCM_OPT const void* cos, RCM_OPT const void* sin,
                                         const void* rstd, const void* y_bar, RCM_OPT void* x_bar, RCM_OPT void* w_bar,
                                         int64_t B, int64_t L, int64_t D, int64_t K, int64_t group, int32_t rope,
                                         int32_t x_dtype, int32_t w_dtype, int32_t y_dtype);

/* ---- attention ----------------------------------------------------------------------------------------------- */
/* o = softmax(scale q k^T) v per head; q [B,Lq,H,K], k [B,Lk,H,K], v [B,Lk,H,Kv], o [B,Lq,H,Kv]; lse: stat [B,H,Lq],
 * the natural log of the sum of exponentials of the scaled scores, saved. All tensors are contiguous.
 * jvp: o' = (P.S') v + P v' - rowsum(P.S') o with S' = scale (q' k^T + q k'^T). */
RCM_API rcm_status rcm_attention_fwd(const void* q, const void* k, const void* v, void* o, void* lse, int64_t B,
                                     int64_t H, int64_t Lq, int64_t Lk, int64_t K, int64_t Kv, double scale,
                                     int32_t dtype);
RCM_API rcm_status rcm_attention_jvp(const void* q, const void* k, const void* v, RCM_OPT const void* q_dot,
                                     RCM_OPT const void* k_dot, RCM_OPT const void* v_dot, void* o, void* o_dot,
                                     void* lse, int64_t B, int64_t H, int64_t Lq, int64_t Lk, int64_t K, int64_t Kv,
                                     double scale, int32_t dtype);
RCM_API rcm_status rcm_attention_vjp(const void* q, const void* k, const void* v, const void* o, const void* lse,
                                     const void* o_bar, RCM_OPT void* q_bar, RCM_OPT void* k_bar, RCM_OPT void* v_bar,
                                     int64_t B, int64_t H, int64_t Lq, int64_t Lk, int64_t K, int64_t Kv, double scale,
                                     int32_t dtype);

/* ---- gate_residual ------------------------------------------------------------------------------------------- */
/* y[b,l,:] = x + gate[b,:] * h; x, y [B,L,D] of x_dtype, h of h_dtype. gate: stat [B,D] with gate_stride elements
 * between samples; null: 1. vjp: h_bar = gate y_bar; gate_bar += sum over l of y_bar h. x_bar is y_bar, which core
 * passes on. */
RCM_API rcm_status rcm_gate_residual_fwd(const void* x, const void* h, RCM_OPT const void* gate, void* y, int64_t B,
                                         int64_t L, int64_t D, int64_t gate_stride, int32_t x_dtype, int32_t h_dtype);
RCM_API rcm_status rcm_gate_residual_jvp(const void* x, const void* h, RCM_OPT const void* gate,
                                         RCM_OPT const void* x_dot, RCM_OPT const void* h_dot,
                                         RCM_OPT const void* gate_dot, void* y, void* y_dot, int64_t B, int64_t L,
                                         int64_t D, int64_t gate_stride, int32_t x_dtype, int32_t h_dtype);
RCM_API rcm_status rcm_gate_residual_vjp(RCM_OPT const void* h, RCM_OPT const void* gate, const void* y_bar,
                                         RCM_OPT void* h_bar, RCM_OPT void* gate_bar, int64_t B, int64_t L, int64_t D,
                                         int64_t gate_stride, int32_t x_dtype, int32_t h_dtype);

/* ---- add_modulation ------------------------------------------------------------------------------------------ */
/* y[b,s,:] = p[s,:] + e[b, Se == 1 ? 0 : s, :]; p [S,D], a parameter of p_dtype; e [B,Se,D] and y [B,S,D] of `dtype`,
 * f32 or f64. vjp: p_bar += sum over b of y_bar; e_bar = y_bar, summed over s when Se is 1. */
RCM_API rcm_status rcm_add_modulation_fwd(const void* p, const void* e, void* y, int64_t B, int64_t S, int64_t Se,
                                          int64_t D, int32_t p_dtype, int32_t dtype);
RCM_API rcm_status rcm_add_modulation_jvp(const void* p, const void* e, const void* e_dot, void* y, void* y_dot,
                                          int64_t B, int64_t S, int64_t Se, int64_t D, int32_t p_dtype, int32_t dtype);
RCM_API rcm_status rcm_add_modulation_vjp(const void* y_bar, RCM_OPT void* p_bar, RCM_OPT void* e_bar, int64_t B,
                                          int64_t S, int64_t Se, int64_t D, int32_t p_dtype, int32_t dtype);

/* ---- patchify ------------------------------------------------------------------------------------------------ */
/* y [B,L,P] = the patches of x [B,C,T,Y,X], L in the order (t, y, x), P = C*pt*py*px. order 0: a patch is (c, pt, py,
 * px); order 1: (pt, py, px, c). T, Y and X are multiples of the patch. Any two float dtypes. */
RCM_API rcm_status rcm_patchify_fwd(const void* x, void* y, int64_t B, int64_t C, int64_t T, int64_t Y, int64_t X,
                                    int64_t pt, int64_t py, int64_t px, int32_t order, int32_t x_dtype,
                                    int32_t y_dtype);
RCM_API rcm_status rcm_patchify_jvp(const void* x, const void* x_dot, void* y, void* y_dot, int64_t B, int64_t C,
                                    int64_t T, int64_t Y, int64_t X, int64_t pt, int64_t py, int64_t px, int32_t order,
                                    int32_t x_dtype, int32_t y_dtype);
RCM_API rcm_status rcm_patchify_vjp(const void* y_bar, void* x_bar, int64_t B, int64_t C, int64_t T, int64_t Y,
                                    int64_t X, int64_t pt, int64_t py, int64_t px, int32_t order, int32_t x_dtype,
                                    int32_t y_dtype);

/* ---- unpatchify ---------------------------------------------------------------------------------------------- */
/* The inverse of patchify: x [B,L,P] -> y [B,C,T,Y,X], with the same arguments (C, T, Y, X describe y). */
RCM_API rcm_status rcm_unpatchify_fwd(const void* x, void* y, int64_t B, int64_t C, int64_t T, int64_t Y, int64_t X,
                                      int64_t pt, int64_t py, int64_t px, int32_t order, int32_t x_dtype,
                                      int32_t y_dtype);
RCM_API rcm_status rcm_unpatchify_jvp(const void* x, const void* x_dot, void* y, void* y_dot, int64_t B, int64_t C,
                                      int64_t T, int64_t Y, int64_t X, int64_t pt, int64_t py, int64_t px,
                                      int32_t order, int32_t x_dtype, int32_t y_dtype);
RCM_API rcm_status rcm_unpatchify_vjp(const void* y_bar, void* x_bar, int64_t B, int64_t C, int64_t T, int64_t Y,
                                      int64_t X, int64_t pt, int64_t py, int64_t px, int32_t order, int32_t x_dtype,
                                      int32_t y_dtype);

/* ---- timestep_embed ------------------------------------------------------------------------------------------ */
/* y[b,:] = [cos(t_b f_i), sin(t_b f_i)], f_i = 10000^(-i/(N/2)) for i < N/2; t f64 [B] in the units of the network; y
 * [B,N], f32 or f64, N even. Angles are f64. y_dot = t_dot f_i [-sin, cos]; t_bar f64 [B]. */
RCM_API rcm_status rcm_timestep_embed_fwd(const double* t, void* y, int64_t B, int64_t N, int32_t dtype);
RCM_API rcm_status rcm_timestep_embed_jvp(const double* t, const double* t_dot, void* y, void* y_dot, int64_t B,
                                          int64_t N, int32_t dtype);
RCM_API rcm_status rcm_timestep_embed_vjp(const double* t, const void* y_bar, double* t_bar, int64_t B, int64_t N,
                                          int32_t dtype);

/* ---- sq_loss ------------------------------------------------------------------------------------------------- */
/* loss[b] = weight[b] * sum of r^2 with r = (x - target) - delta, in f64; x, target, delta [B,N], weight, loss f64
 * [B]. target and delta are constants; null: zero. loss_dot = 2 weight * sum of r x_dot; x_bar = 2 weight[b]
 * loss_bar[b] r. A sample of weight 0 is excluded: its loss and x_bar are exactly 0 even where x is NaN or Inf. */
RCM_API rcm_status rcm_sq_loss_fwd(const void* x, RCM_OPT const void* target, RCM_OPT const void* delta,
                                   const double* weight, double* loss, int64_t B, int64_t N, int32_t dtype);
RCM_API rcm_status rcm_sq_loss_jvp(const void* x, RCM_OPT const void* target, RCM_OPT const void* delta,
                                   const double* weight, const void* x_dot, double* loss, double* loss_dot, int64_t B,
                                   int64_t N, int32_t dtype);
RCM_API rcm_status rcm_sq_loss_vjp(const void* x, RCM_OPT const void* target, RCM_OPT const void* delta,
                                   const double* weight, const double* loss_bar, void* x_bar, int64_t B, int64_t N,
                                   int32_t dtype);

/* ---- cross_entropy ------------------------------------------------------------------------------------------- */
/* loss[b] = logsumexp(x[b,:]) - x[b,label[b]]; x [B,N], label i32 [B] in [0,N), loss f64 [B]. The CPU checks labels
 * (RCM_E_ARG); on a GPU an invalid label gives a NaN loss. x_bar = loss_bar[b] (softmax(x) - onehot). */
RCM_API rcm_status rcm_cross_entropy_fwd(const void* x, const int32_t* label, double* loss, int64_t B, int64_t N,
                                         int32_t dtype);
RCM_API rcm_status rcm_cross_entropy_jvp(const void* x, const int32_t* label, const void* x_dot, double* loss,
                                         double* loss_dot, int64_t B, int64_t N, int32_t dtype);
RCM_API rcm_status rcm_cross_entropy_vjp(const void* x, const int32_t* label, const double* loss_bar, void* x_bar,
                                         int64_t B, int64_t N, int32_t dtype);

/* ---- nondiff: asynchronous copies ----------------------------------------------------------------------------- */
/* out[0] = address of uninitialised host memory for asynchronous copies (page-locked on a GPU), 256-byte aligned. */
RCM_API rcm_status rcm_host_alloc(RCM_HOST int64_t* out, int64_t bytes);
/* The caller must have waited for copies that use the memory. */
RCM_API rcm_status rcm_host_free(RCM_OPT void* memory);
/* Queues a copy on the copy stream, which runs concurrently with compute; only events order the two. kind as in
 * rcm_copy. The host side must be memory of rcm_host_alloc. Neither side may be freed or reused before an event
 * recorded after the copy. */
RCM_API rcm_status rcm_copy_async(void* dst, const void* src, int64_t bytes, int32_t kind);
/* Streams: 0 compute, 1 copies. An event is a number in [0, 64) and marks everything queued on the stream so far. */
RCM_API rcm_status rcm_event_record(int32_t event, int32_t stream);
/* Work queued on the stream from now on waits for the event. RCM_E_ARG if the event was never recorded. */
RCM_API rcm_status rcm_stream_wait(int32_t stream, int32_t event);
/* Blocks until the event. RCM_E_ARG if it was never recorded. */
RCM_API rcm_status rcm_event_sync(int32_t event);

/* ---- nondiff: recorded calls --------------------------------------------------------------------------------- */
/* Small calls take longer to queue than to run. Calls between _begin and _end are not run but recorded as a graph,
 * with their addresses and scalars; _launch queues all of them at once and may be repeated. What the calls allocate
 * stays reserved in `memory`; graphs that share a memory must be launched in the order of their recording. Copies from
 * and to the host and rcm_sync cannot be recorded. GPU only: the CPU returns RCM_E_BACKEND. */
RCM_API rcm_status rcm_graph_memory(RCM_HOST int64_t* out);
RCM_API rcm_status rcm_graph_memory_free(int64_t memory);
RCM_API rcm_status rcm_graph_begin(int64_t memory);
RCM_API rcm_status rcm_graph_end(RCM_HOST int64_t* out);
RCM_API rcm_status rcm_graph_launch(int64_t graph);
RCM_API rcm_status rcm_graph_free(int64_t graph);

/* ---- nondiff: pictures --------------------------------------------------------------------------------------- */
/* out u8 [B,N,C] = round(255 (x + 1) / 2), clamped to [0, 255], of x [B,C,N] in [-1, 1]: N pixels of C channels. NaN
 * gives 0. */
RCM_API rcm_status rcm_pixels(const void* x, void* out, int64_t B, int64_t C, int64_t N, int32_t dtype);

/* ---- nondiff: files ------------------------------------------------------------------------------------------ */
/* Reads `bytes` bytes of a regular file from `offset` into dst, in parallel parts; path is zero-terminated. RCM_E_IO,
 * with path and cause, when the file cannot be opened or is too short; dst is then undefined. On return the file is no
 * longer needed; on a GPU the last copies may still be queued. */
RCM_API rcm_status rcm_file_read(RCM_HOST const char* path, void* dst, int64_t offset, int64_t bytes);

/* ---- nondiff: text encoder ----------------------------------------------------------------------------------- */
/* y[i,:] = table[ids[i],:]; table [V,D], ids i32 [n] in [0,V), y [n,D]. Any two float dtypes. The CPU checks ids
 * (RCM_E_ARG); on a GPU an invalid id gives a row of NaN. */
RCM_API rcm_status rcm_embedding(const void* table, const int32_t* ids, void* y, int64_t n, int64_t V, int64_t D,
                                 int32_t table_dtype, int32_t y_dtype);
/* bias[h,i] = table[bucket[i],h]; table [V,H], bucket i32 [n] in [0,V), checked as above. Any two float dtypes. */
RCM_API rcm_status rcm_relative_bias(const void* table, const int32_t* bucket, void* bias, int64_t n, int64_t V,
                                     int64_t H, int32_t table_dtype, int32_t bias_dtype);
/* y[i] = x[i] GELU(gate[i]), tanh form; x and gate of `dtype`. */
RCM_API rcm_status rcm_gelu_gate(const void* x, const void* gate, void* y, int64_t n, int32_t dtype, int32_t y_dtype);
/* o = softmax(scale q k^T + bias) v per head; q, k, v, o [B,L,H,K], K <= 128. bias: stat [H,2L-1], element j - i + L -
 * 1 for query i and key j. Only the first lengths[b] keys of a sample are used (i32 [B] in [0,L]; null: L); with none,
 * o is 0. */
RCM_API rcm_status rcm_bias_attention(const void* q, const void* k, const void* v, const void* bias,
                                      RCM_OPT const int32_t* lengths, void* o, int64_t B, int64_t H, int64_t L,
                                      int64_t K, double scale, int32_t dtype);

/* ---- nondiff: f8 --------------------------------------------------------------------------------------------- */
/* f8_e4m3 without infinities (largest value 448), one byte per element. encode: dst[i] = src[i] / scale, with an f32
 * quotient rounded to nearest even; values beyond 448, infinity included, saturate; NaN stays NaN; src f32, bf16 or
 * f16. decode: dst[i] = src[i] * scale in f32. scale is a positive f32. */
RCM_API rcm_status rcm_f8_encode(const void* src, void* dst, int64_t n, double scale, int32_t src_dtype);
RCM_API rcm_status rcm_f8_decode(const void* src, void* dst, int64_t n, double scale, int32_t dst_dtype);

/* ---- nondiff: convolutions over video ------------------------------------------------------------------------- */
/* Activations in this section are one sample, channels last: [T,Y,X,C]. */
/* Packs weights w [O,I,kt,k,k] for rcm_conv3d: p [slices,O,Ip], with zeros for channels I to Ip. upsample 0: slice (dt
 * k + dy) k + dx. upsample 1 (kt 1, k 3, pad 1): the 3x3 kernel on a grid doubled by repetition equals four 2x2
 * kernels on the grid itself, one per parity (py,px) of the output: slice ((py 2 + px) 2 + ey) 2 + ex, summed in f32
 * (f64). */
RCM_API rcm_status rcm_conv3d_pack(const void* w, void* p, int64_t O, int64_t I, int64_t Ip, int64_t kt, int64_t k,
                                   int32_t upsample, int32_t w_dtype, int32_t p_dtype);
/* y[t,y,x,o] = b[o] + r[t,y,x,o] + sum over dt,dy,dx,c of w[dt,dy,dx,o,c] x[t st + dt - pt, y s + dy - p, x s + dx -
 * p, c], w packed as above. x is zero outside its bounds, but frames before the first are the last ones of `past`
 * [P,Y,X,C] (null when P is 0). geometry (host, 17 counts): T Y X C of x, P, To Yo Xo O of the sum, kt k, st s, pt p,
 * upsample, split. upsample 1: kt 1, k 3, s 1, p 1, (Yo,Xo) = (Y,X), and y, r are [To,2 Yo,2 Xo,O]. split 2: channel o
 * of frame t becomes channel o mod O/2 of frame 2t + o div O/2, so y, r are [2 To,Yo,Xo,O/2]; split 1: none. x, past,
 * w, r, y have `dtype`, b [O] b_dtype; b and r may be null. Accumulates in f32 (f64). */
RCM_API rcm_status rcm_conv3d(const void* x, RCM_OPT const void* past, const void* w, RCM_OPT const void* b,
                              RCM_OPT const void* r, void* y, RCM_HOST const int64_t* geometry, int32_t dtype,
                              int32_t b_dtype);
/* y[m,:] = f(x[m,:] / max(||x[m,:]||_2, eps) sqrt(C) g[:]); f is SiLU when `silu` is 1, else the identity. x, y [M,C]
 * of `dtype`, g [C] of g_dtype. y may be x. */
RCM_API rcm_status rcm_channel_norm(const void* x, const void* g, void* y, int64_t M, int64_t C, int32_t silu,
                                    double eps, int32_t dtype, int32_t g_dtype);
/* y[t,y,x,c] = x[c,t,y,x] mul[c] + add[c] for c < C, and 0 for C <= c < Cy. x is a window: dense along columns, with
 * c_stride, t_stride and y_stride elements between channels, frames and rows. mul, add f64 [C] or null. Any two float
 * dtypes. */
RCM_API rcm_status rcm_channels_last(const void* x, RCM_OPT const double* mul, RCM_OPT const double* add, void* y,
                                     int64_t C, int64_t T, int64_t Y, int64_t X, int64_t c_stride, int64_t t_stride,
                                     int64_t y_stride, int64_t Cy, int32_t x_dtype, int32_t y_dtype);
/* The inverse layout: y[c,n] = x[n,c] mul[c] + add[c] for c < C of x [N,Cx]; row c of y begins at element
 * c y_stride. */
RCM_API rcm_status rcm_channels_first(const void* x, RCM_OPT const double* mul, RCM_OPT const double* add, void* y,
                                      int64_t C, int64_t N, int64_t Cx, int64_t y_stride, int32_t x_dtype,
                                      int32_t y_dtype);
/* y[n,y0+i,x0+j] += x[n,i,j] u(i) v(j): adds a tile x [n,h,w] to y [n,H,W] with linear ramps at its sides. u(i) is the
 * least of 1, (i + 1/2) / top and (h - i - 1/2) / bottom, v(j) likewise with left and right; a side of 0 has no
 * ramp. */
RCM_API rcm_status rcm_blend_tile(const void* x, void* y, int64_t n, int64_t h, int64_t w, int64_t H, int64_t W,
                                  int64_t y0, int64_t x0, int64_t top, int64_t bottom, int64_t left, int64_t right,
                                  int32_t x_dtype, int32_t y_dtype);
/* y[m,:] = softmax(scale x[m,:]); x, y [M,N]. */
RCM_API rcm_status rcm_softmax_rows(const void* x, void* y, int64_t M, int64_t N, double scale, int32_t x_dtype,
                                    int32_t y_dtype);

#ifdef __cplusplus
}
#endif
#endif
