#ifndef TESSERA_OPS_NOISE_H_
#define TESSERA_OPS_NOISE_H_

#include <string>

#include "kernels/pointwise/noise.h"
#include "ops/context.h"

// Random numbers in a model: dropout, jitter, Gumbel noise of routers. A draw is keyed by the run's
// seed, the place in the model, the name given here and the step (Context::noise_step), so the same
// step draws the same numbers, whatever else the model holds and however often it runs. As all ops:
// see ops/ops.h.

namespace tessera {

// Numbers of a kind, fp32 of `shape`: a constant.
Tensor Noise(Context& ctx, const std::string& name, NoiseKind kind, const Shape& shape);
// x with a share `rate` in [0, 1) of its elements 0 and the others larger by 1 / (1 - rate), in
// training; x elsewhere.
Var Dropout(Context& ctx, const std::string& name, const Var& x, float rate);

}  // namespace tessera

#endif  // TESSERA_OPS_NOISE_H_
