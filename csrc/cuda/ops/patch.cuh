// The permutation behind patchify and unpatchify (patchify.cu).
#pragma once
#include "shared/ops/patch.h"

namespace rcm {

// Latent to tokens, or back.
void permute(const Move& m, bool to_tokens, const PatchShape& s);

}  // namespace rcm
