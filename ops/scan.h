#ifndef TESSERA_OPS_SCAN_H_
#define TESSERA_OPS_SCAN_H_

#include "ops/context.h"

// Recurrences over time. As all ops: see ops/ops.h.

namespace tessera {

// A scan's outputs, and its state after the last token where that was asked for. Documents are
// those of ctx.start.
enum class LastState : uint8_t { kDrop, kKeep };
struct Scanned {
  Var y, state;
};
// Mamba-2's scan of x [B,T,H*P] with raw step sizes dt [B,T,H], b and c [B,T,G*N], and A_log,
// dt_bias, D [H]; D and state [B,H,N,P] may be undefined.
struct SsdInputs {
  Var x, dt, b, c, A_log, dt_bias, D, state;
  int64_t N;
};
Scanned SsdScan(Context& ctx, const SsdInputs& in, LastState last);
// Gated linear attention of q, k [B,T,heads*K] and v [B,T,heads*V] with log gates g <= 0 like k;
// state [B,heads,K,V] may be undefined.
struct GlaInputs {
  Var q, k, v, g, state;
  int64_t heads;
  float scale;
};
Scanned GlaScan(Context& ctx, const GlaInputs& in, LastState last);

}  // namespace tessera

#endif  // TESSERA_OPS_SCAN_H_
