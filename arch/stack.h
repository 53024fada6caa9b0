#ifndef TESSERA_ARCH_STACK_H_
#define TESSERA_ARCH_STACK_H_

#include <memory>
#include <vector>

#include "arch/block.h"
#include "arch/parts/norm.h"
#include "arch/stack_config.h"

namespace tessera {

// A value of the residual stream: x, or x + scale f, a sum that is left to the norm after it.
struct Stream {
  Var x, f;
  float scale = 1;

  Var Value(Context& ctx);                        // adds up what is left
  Var Normalise(Context& ctx, const Norm& norm);  // the norm of the value, which it becomes
};

// Residual layers, one after the other: a model's, or those that a block holds.
class Stack {
 public:
  // The config has been placed (arch/placement.h). `in`: what the block that holds the stack was
  // told, of which the layers take what their config could not know. Parameters are made in `p`;
  // layers that share theirs are made of the same ones.
  Stack(const StackConfig& config, const BlockShape& in, const Parameters& p);

  // x [B,T,D] -> [B,T,D]. The state, if any, is advanced by T.
  Var Forward(Context& ctx, const Var& x, State* state) const;
  // The same for a stream, which the last layer may leave as a sum.
  Stream Run(Context& ctx, Stream stream, State* state) const;

  // Of all layers and of those inside of them.
  StateSize States(DType compute) const;
  struct Layer {
    LayerConfig config;
    std::vector<std::unique_ptr<Block>> blocks;
    std::vector<Projection> projections;  // concat: one [D,D] a branch
    Norm norm, second_norm;               // the second of a sandwich
  };
  const std::vector<Layer>& layers() const { return layers_; }

 private:
  // `own`: of the layer.
  Layer MakeLayer(const LayerConfig& config, const BlockShape& in, const Parameters& own) const;
  Var RunBlocks(Context& ctx, const Layer& layer, const Var& x, State* state) const;
  // The stream after a layer.
  Stream RunLayer(Context& ctx, const Layer& layer, Stream stream, State* state) const;
  // The same, keeping no activations: what the layer remembers, reads and leaves goes through too.
  Stream RunAgain(Context& ctx, const Layer& layer, const Var& x, State* state) const;

  std::vector<Layer> layers_;
};

// The bytes of a block's state, with those of the stacks that it holds.
StateSize StatesOf(const Block& block, DType compute);

}  // namespace tessera

#endif  // TESSERA_ARCH_STACK_H_
