#include "patch.cuh"

void rcm::unpatchify::forward(const Move& m, const PatchShape& s) { permute(m, false, s); }
void rcm::unpatchify::backward(const Move& m, const PatchShape& s) { permute(m, true, s); }
