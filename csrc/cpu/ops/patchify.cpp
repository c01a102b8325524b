#include "patch.h"

void rcm::patchify::forward(const Move& m, const PatchShape& s) { permute(m, true, s); }
void rcm::patchify::backward(const Move& m, const PatchShape& s) { permute(m, false, s); }
