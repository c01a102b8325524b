// Convolution over video on sm_90a.
//
// Idea: an implicit matrix product whose rows are output positions and whose depth is channels times taps. For each
// chunk of channels and each input frame one box of the input is loaded that covers the tile and its borders (the copy
// engine fills zeros outside), and per tap the weights of that tap. A tap reads the same box from another row on, so
// the input crosses from L2 to shared memory once for all taps of a frame.
// Tile: each warpgroup computes MB blocks of 8 x 8 positions by N outputs; N and MB are limited by accumulators (144 or
// 192 a thread).
// Barriers: full/empty per slot of two rings, boxes and taps.
// Warp roles: warpgroup 0 is the producer (one thread issues copies), warpgroups 1 and 2 multiply. Blocks are
// persistent.
#include <cstdlib>

#include "conv.cuh"
#include "cuda/ptx/hopper.cuh"
#include "cuda/ptx/tensor_map.cuh"
#include "cuda/ptx/wgmma_shared.cuh"

namespace rcm {
namespace {

using namespace ptx;

constexpr int kMaxGroups = 27, kMaxTaps = 27, kMaxOutputs = 1024;

// One box of the input: its offset from the tile, and the taps that read it.
struct Box {
  int channel, dx, parity, dy, dt, first, taps;
};
struct Tap {
  int row, slice;  // first row of the box to read, slice of the packed weights
};

struct Plan {
  CUtensorMap x, past, w;
  Box box[kMaxGroups];
  Tap tap[kMaxTaps];
  void* y;
  const void *r, *b;
  int32_t b_dtype;
  int boxes;                           // per pass
  int chunks, box_bytes, halo, lines;  // chunks of channels; columns and rows of a box
  int To, Yo, Xo, O, width, split, upsample, st, P;
  int passes, columns, across, side;  // columns: blocks of N outputs; side: columns of a tile, 16 or 8
  int64_t tiles;
};

template <int KC, int N, int MB>
struct Layout {
  static constexpr int kRowBytes = KC * 2;
  static constexpr int kBoxBytes = (10 * (16 * MB + 2) * kRowBytes + 1023) / 1024 * 1024;
  static constexpr int kTapBytes = (N * kRowBytes + 1023) / 1024 * 1024;
  static constexpr int kBoxes = KC == 64 ? 2 : 3;
  static constexpr int kSpare = 232448 - 1024 - kMaxOutputs * 4 - 512 - kBoxes * kBoxBytes;
  static constexpr int kTaps = kSpare / kTapBytes < 16 ? kSpare / kTapBytes : 16;
  static constexpr int kBytes = 1024 + kMaxOutputs * 4 + 512 + kBoxes * kBoxBytes + kTaps * kTapBytes;
  static_assert(kTaps >= 4, "ring");
};

struct Place {
  int pass, o0, t, x0, y0;
};
// Tiles that share input are neighbours: parities vary fastest, then blocks of outputs, frames, and places in the
// picture.
[[maybe_unused]] __device__ inline Place place_of(const Plan& p, int MB, int64_t id) {
  Place at;
  uint32_t i = (uint32_t)id;
  at.pass = i % p.passes, i /= p.passes;
  at.o0 = i % p.columns, i /= p.columns;
  at.t = i % p.To, i /= p.To;
  at.x0 = (i % p.across) * p.side;
  at.y0 = (i / p.across) * (MB * 128 / p.side);
  return at;
}

template <class T, int KC, int N, int MB>
__global__ void __launch_bounds__(384, 1) conv_kernel(const __grid_constant__ Plan p) {
#if RCM_HOPPER_CODE
  using L = Layout<KC, N, MB>;

  // Shared memory
  extern __shared__ char raw[];
  char* shared = reinterpret_cast<char*>((reinterpret_cast<uintptr_t>(raw) + 1023) & ~(uintptr_t)1023);
  char *boxes = shared, *taps = boxes + L::kBoxes * L::kBoxBytes;
  float* bias = reinterpret_cast<float*>(taps + L::kTaps * L::kTapBytes);
  uint64_t* full_box = reinterpret_cast<uint64_t*>(bias + kMaxOutputs);
  uint64_t *empty_box = full_box + L::kBoxes, *full_tap = empty_box + L::kBoxes, *empty_tap = full_tap + L::kTaps;

  // Fill barriers
  if (threadIdx.x == 0) {
    init_ring(full_box, empty_box, L::kBoxes, 8);
    init_ring(full_tap, empty_tap, L::kTaps, 8);
    barrier_init_fence();
  }
  await_queued();
  for (int o = threadIdx.x; o < p.columns * N && o < kMaxOutputs; o += blockDim.x)
    bias[o] = p.b && o < p.O ? load_any<float>(p.b, o, p.b_dtype) : 0.0f;
  __syncthreads();
  const int group = threadIdx.x / 128;

  if (group == 0) {
    // Producer warp
    registers_lower<40>();
    if (threadIdx.x == 0) {
      int box_slot = 0, box_phase = 1, tap_slot = 0, tap_phase = 1;
      for (int64_t id = blockIdx.x; id < p.tiles; id += gridDim.x) {
        const Place at = place_of(p, MB, id);
        for (int g = at.pass * p.boxes; g < (at.pass + 1) * p.boxes; ++g) {
          const Box& box = p.box[g];
          const int frame = at.t * p.st + box.dt;
          const CUtensorMap* map = frame < 0 && p.P > 0 ? &p.past : &p.x;
          for (int chunk = 0; chunk < p.chunks; ++chunk) {
            barrier_wait(empty_box + box_slot, box_phase);
            barrier_expect(full_box + box_slot, p.box_bytes);
            copy_box(boxes + box_slot * L::kBoxBytes, map, full_box + box_slot, box.channel + chunk * KC,
                     at.x0 + box.dx, box.parity, at.y0 + box.dy, frame < 0 ? frame + p.P : frame);
            if (++box_slot == L::kBoxes) box_slot = 0, box_phase ^= 1;
            for (int i = 0; i < box.taps; ++i) {
              barrier_wait(empty_tap + tap_slot, tap_phase);
              barrier_expect(full_tap + tap_slot, N * L::kRowBytes);
              copy_box(taps + tap_slot * L::kTapBytes, &p.w, full_tap + tap_slot, chunk * KC, at.o0 * N,
                       p.tap[box.first + i].slice);
              if (++tap_slot == L::kTaps) tap_slot = 0, tap_phase ^= 1;
            }
          }
        }
      }
    }
  } else {
    // Consumer warpgroups
    registers_raise<232>();
    const int wg = group - 1, warp = threadIdx.x / 32 % 4, lane = threadIdx.x % 32, quad = lane % 4;
    // The warpgroups' halves of a tile: left and right in a tile of 16 columns, upper and lower in a tile of 8.
    const uint32_t line = (uint32_t)p.halo * L::kRowBytes, block = 8 * line;
    const uint32_t group_offset = wg * (p.side == 16 ? 8 * L::kRowBytes : MB * block);
    const uint32_t box_base = shared_address(boxes) + group_offset, tap_base = shared_address(taps);
    int box_slot = 0, box_phase = 0, tap_slot = 0, tap_phase = 0;
    float d[MB][N / 2];
    for (int64_t id = blockIdx.x; id < p.tiles; id += gridDim.x) {
      const Place at = place_of(p, MB, id);
      // Multiply
      int accumulate = 0, old_tap = -1, old_box = -1;
      for (int g = at.pass * p.boxes; g < (at.pass + 1) * p.boxes; ++g) {
        const int first = p.box[g].first, count = p.box[g].taps;
        for (int chunk = 0; chunk < p.chunks; ++chunk) {
          barrier_wait(full_box + box_slot, box_phase);
          for (int i = 0; i < count; ++i) {
            const uint32_t a = box_base + box_slot * L::kBoxBytes + (uint32_t)p.tap[first + i].row * L::kRowBytes;
            const uint32_t b = tap_base + tap_slot * L::kTapBytes;
            barrier_wait(full_tap + tap_slot, tap_phase);
            wgmma_fence();
#pragma unroll
            for (int k = 0; k < KC / 16; ++k) {
#pragma unroll
              for (int m = 0; m < MB; ++m) {
                WgmmaShared<N, T>::run(d[m], wgmma_rows<L::kRowBytes>(a + m * block + k * 32, line),
                                       wgmma_rows<L::kRowBytes>(b + k * 32, 8 * L::kRowBytes), k > 0 ? 1 : accumulate);
              }
            }
            wgmma_commit();
            accumulate = 1;
            wgmma_wait<1>();  // the multiplies of the previous tap have finished
            if (lane == 0) {
              if (old_tap >= 0) barrier_arrive(empty_tap + old_tap);
              if (old_box >= 0) barrier_arrive(empty_box + old_box);
            }
            old_tap = tap_slot;
            old_box = i == count - 1 ? box_slot : -1;
            if (++tap_slot == L::kTaps) tap_slot = 0, tap_phase ^= 1;
          }
          if (++box_slot == L::kBoxes) box_slot = 0, box_phase ^= 1;
        }
      }
      wgmma_wait<0>();
#pragma unroll
      for (int m = 0; m < MB; ++m) pin(d[m]);
      if (lane == 0) {
        barrier_arrive(empty_tap + old_tap);
        barrier_arrive(empty_box + old_box);
      }

      // Epilogue
      const int n0 = at.o0 * N;
      const int x = at.x0 + (p.side == 16 ? 8 * wg : 0) + lane / 4;
      const int frame = at.t * p.split + n0 / p.width, column = n0 % p.width;
      T* y = static_cast<T*>(p.y);
      const T* r = static_cast<const T*>(p.r);
#pragma unroll
      for (int m = 0; m < MB; ++m) {
#pragma unroll
        for (int h = 0; h < 2; ++h) {
          const int row = at.y0 + (p.side == 16 ? m : wg * MB + m) * 8 + warp * 2 + h;
          const bool inside = row < p.Yo && x < p.Xo;
          const int64_t position =
              p.upsample ? ((int64_t)frame * 2 * p.Yo + 2 * row + at.pass / 2) * 2 * p.Xo + 2 * x + at.pass % 2
                         : ((int64_t)frame * p.Yo + row) * p.Xo + x;
          const int64_t base = position * p.width + column;
          if (N % 32 == 0 && n0 + N <= p.O) {
#pragma unroll
            for (int j = 0; j < N / 8; j += 4) {
              uint32_t u[4] = {};
              if (r) {
                if (inside) {
                  const uint4 v = __ldg(reinterpret_cast<const uint4*>(r + base + 8 * (j + quad)));
                  u[0] = v.x, u[1] = v.y, u[2] = v.z, u[3] = v.w;
                }
                quad_transpose(u, quad);
              }
#pragma unroll
              for (int i = 0; i < 4; ++i) {
                const float2 add = unpack_pair<T>(u[i]),
                             shift = *reinterpret_cast<const float2*>(bias + n0 + 8 * (j + i) + 2 * quad);
                u[i] = pack_pair<T>(d[m][4 * (j + i) + 2 * h] + shift.x + add.x,
                                    d[m][4 * (j + i) + 2 * h + 1] + shift.y + add.y);
              }
              quad_transpose(u, quad);
              if (inside) *reinterpret_cast<uint4*>(y + base + 8 * (j + quad)) = make_uint4(u[0], u[1], u[2], u[3]);
            }
          } else if (inside) {
#pragma unroll
            for (int j = 0; j < N / 8; ++j) {
#pragma unroll
              for (int i = 0; i < 2; ++i) {
                const int o = 8 * j + 2 * quad + i;
                if (n0 + o >= p.O) continue;
                y[base + o] = store_as<T>(d[m][4 * j + 2 * h + i] + bias[n0 + o] + (r ? load_as(r[base + o]) : 0.0f));
              }
            }
          }
        }
      }
    }
  }
#endif
}

// ---- host ---------------------------------------------------------------------------------------------------------
// RCM_CONV=reload loads one box per tap, the tile without borders, so that every operand begins at a multiple of 1024
// bytes.
bool reload_wanted() {
  const char* choice = std::getenv("RCM_CONV");
  return choice && std::strcmp(choice, "reload") == 0;
}

// Boxes and taps of every pass. `halo`: columns of a box that includes the borders; 0: one box per tap.
void schedule(Plan& p, const ConvShape& g, int halo) {
  // Stride 2: pairs of columns are read as channels, pairs of rows as an axis of the tensor map.
  const bool folded = g.s == 2;
  int boxes = 0, taps = 0;
  for (int pass = 0; pass < g.passes(); ++pass) {
    const int begin = boxes;
    int low_x = 0, low_y = 0;
    for (int i = 0; i < g.taps(); ++i) {
      const ConvTap tap = conv_tap(g, pass, i);
      if (i == 0) low_x = tap.dx, low_y = tap.dy;
      const int px = folded ? tap.dx % 2 : 0, py = folded ? tap.dy % 2 : 0;
      const int dx = folded ? tap.dx / 2 : tap.dx, dy = folded ? tap.dy / 2 : tap.dy;
      Box want{px * (int)g.C, halo ? (folded ? 0 : low_x) : dx, py, halo ? (folded ? 0 : low_y) : dy, tap.dt, 0, 0};
      int at = begin;
      const auto same = [&](const Box& b) {
        return b.channel == want.channel && b.dx == want.dx && b.parity == want.parity && b.dy == want.dy &&
               b.dt == want.dt;
      };
      while (at < boxes && !same(p.box[at])) ++at;
      if (at == boxes) p.box[boxes++] = want;
      ++p.box[at].taps;
    }
    p.boxes = boxes - begin;
    // Taps sorted by box.
    for (int at = begin; at < boxes; ++at) {
      p.box[at].first = taps;
      for (int i = 0; i < g.taps(); ++i) {
        const ConvTap tap = conv_tap(g, pass, i);
        const int px = folded ? tap.dx % 2 : 0, py = folded ? tap.dy % 2 : 0;
        const int dx = folded ? tap.dx / 2 : tap.dx, dy = folded ? tap.dy / 2 : tap.dy;
        const Box& box = p.box[at];
        const bool in_box = box.channel == px * (int)g.C && box.parity == py && box.dt == tap.dt &&
                            (halo > 0 || (box.dx == dx && box.dy == dy));
        if (in_box) p.tap[taps++] = {(dy - box.dy) * halo + dx - box.dx, tap.slice};
      }
    }
  }
}

// Fills in everything of a plan but its addresses.
void lay_out(Plan& p, const ConvShape& g, int KC, int N, int MB, bool reload) {
  // The tile shape that wastes the fewest positions beyond the border of the picture.
  const int64_t wide = ceil_div(g.Xo, 16) * ceil_div(g.Yo, 8 * MB), tall = ceil_div(g.Xo, 8) * ceil_div(g.Yo, 16 * MB);
  p.side = wide <= tall ? 16 : 8;
  const int border = reload ? 0 : g.upsample || g.s == 2 ? 1 : (int)g.k - 1;
  p.halo = p.side + border;
  p.lines = MB * 128 / p.side + border;
  p.box_bytes = p.halo * p.lines * KC * 2;
  schedule(p, g, reload ? 0 : p.halo);
  p.chunks = (int)ceil_div(g.C, KC);
  p.To = (int)g.To, p.Yo = (int)g.Yo, p.Xo = (int)g.Xo, p.O = (int)g.O, p.width = (int)(g.O / g.split),
  p.split = (int)g.split, p.upsample = (int)g.upsample;
  p.st = (int)g.st, p.P = (int)g.P, p.passes = g.passes();
  p.columns = (int)ceil_div(g.O, N), p.across = (int)ceil_div(g.Xo, p.side);
  p.tiles = (int64_t)p.passes * p.columns * p.To * p.across * ceil_div(g.Yo, MB * 128 / p.side);
}

template <class T, int KC, int N, int MB>
bool launch(const ConvShape& g, const conv3d::Call& c) {
  using L = Layout<KC, N, MB>;
  if (g.s == 2 && g.C % KC != 0) return false;
  if (g.split > 1 && (g.O / g.split) % N != 0) return false;
  Plan p{};
  lay_out(p, g, KC, N, MB, reload_wanted());
  if (p.tiles > INT32_MAX || p.columns * N > kMaxOutputs) return false;

  const bool folded = g.s == 2;
  const int64_t line = g.X * g.C, frame = g.Y * line, slices = g.upsample ? 16 : g.taps();
  const int box[5] = {KC, p.halo, 1, p.lines, 1}, w_box[3] = {KC, N, 1};
  const auto video = [&](CUtensorMap* map, const void* data, int64_t frames) {
    const int64_t sizes[5] = {folded ? 2 * g.C : g.C, folded ? g.X / 2 : g.X, folded ? 2 : 1, folded ? g.Y / 2 : g.Y,
                              frames};
    const int64_t strides[4] = {folded ? 2 * g.C : g.C, line, folded ? 2 * line : line, frame};
    return encode_tensor_map(map, {data, c.dtype, 5, sizes, strides, box, L::kRowBytes});
  };
  const int64_t w_sizes[3] = {g.C, g.O, slices}, w_strides[2] = {g.C, g.O * g.C};
  const BoxedTensor weights{c.w, c.dtype, 3, w_sizes, w_strides, w_box, L::kRowBytes};
  if (!video(&p.x, c.x, g.T) || !encode_tensor_map(&p.w, weights)) return false;
  if (g.P > 0 && !video(&p.past, c.past, g.P)) return false;
  p.y = c.y, p.r = c.r, p.b = c.b, p.b_dtype = c.b_dtype;
  auto* kernel = conv_kernel<T, KC, N, MB>;
  cuda_check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, L::kBytes), "shared memory");
  const int64_t blocks = p.tiles < gpu().sms ? p.tiles : gpu().sms;
  queue_kernel(kernel, (unsigned)blocks, 384, L::kBytes, p);
  return true;
}

template <class T>
bool dispatch(const ConvShape& g, const conv3d::Call& c) {
  if (g.O <= 8) return launch<T, 32, 8, 3>(g, c);
  if (g.C <= 16) return launch<T, 16, 96, 3>(g, c);
  if (g.C % 64 == 0 && g.O % 192 == 0) return launch<T, 64, 192, 2>(g, c);
  return launch<T, 32, 96, 3>(g, c);
}

}  // namespace

bool conv_hopper(const ConvShape& g, const conv3d::Call& c) {
  if (gpu().major != 9 || (c.dtype != RCM_BF16 && c.dtype != RCM_F16) || g.C % 8 != 0 || g.T == 0) return false;
  if ((g.O / g.split) % 8 != 0 && g.O > 8) return false;  // rows of y are written 16 bytes at a time
  if (!aligned(c.y, 16) || !aligned(c.r, 16)) return false;
  // Kernels of 1 or 3; or a spatial stride of 2 over an even number of rows and columns, without padding in front.
  const bool plain = g.s == 1 && (g.k == 1 || g.k == 3) && g.kt * g.k * g.k <= kMaxTaps && g.p < g.k;
  const bool halving =
      g.s == 2 && g.k == 3 && g.kt <= 3 && g.p == 0 && g.X % 2 == 0 && g.Y % 2 == 0 && g.X > 0 && g.Y > 0;
  if (!plain && !halving) return false;
  return c.dtype == RCM_BF16 ? dispatch<bf16>(g, c) : dispatch<f16>(g, c);
}

}  // namespace rcm
