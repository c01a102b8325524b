// rng: arguments and checks, the same for both backends.
#pragma once
#include "shared/guard.h"

namespace rcm::rng {

// Row r of out [rows, n] draws from the stream `stream + r * stream_step`, from block `first_block` on; a block is four
// numbers.
struct Normals {
  void* out;
  int64_t rows, n;
  uint64_t seed, stream, stream_step, first_block;
  int32_t dtype;
};

// Defined by each backend; the arguments have been checked.
void normals(const Normals& a);

}  // namespace rcm::rng
