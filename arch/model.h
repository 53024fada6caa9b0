#ifndef TESSERA_ARCH_MODEL_H_
#define TESSERA_ARCH_MODEL_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "arch/block.h"
#include "arch/model_config.h"
#include "arch/parameters.h"
#include "ops/context.h"

// A language model: embedding, the layer graph of the config, a last norm, and a head over the
// vocabulary.

namespace tessera {

// What a model remembers of the tokens before: a State for each block, and where each sequence is
// in its document.
class ModelState {
 public:
  // capacity > 0: for generation of at most that many tokens, caches written in place.
  ModelState(int64_t blocks, int64_t batch, int64_t capacity);
  State* At(int64_t block) { return &states_[static_cast<size_t>(block)]; }
  int64_t bytes() const;

  // A document of the sequence begins at this row of the next chunk.
  void StartDocument(int64_t sequence, int64_t row);
  // Where the next T tokens of each sequence are in its document: [B,T].
  std::vector<int32_t> NextPositions(int64_t T) const;
  void Advance(int64_t T);  // behind them

  std::vector<int64_t> position;  // tokens since the start of the document, one a sequence
  int64_t tokens = 0;             // seen so far

 private:
  std::vector<State> states_;
  std::vector<std::vector<int64_t>> starts_;  // by sequence: of documents, in the next chunk
};

class Model {
 public:
  // The config has been checked. Parameters are made in `parameters`, in order, not yet
  // initialised.
  Model(const ModelConfig& config, int64_t vocab_size, ParameterSet* parameters);
  // Its layers point into its own config.
  Model(const Model&) = delete;
  Model& operator=(const Model&) = delete;

  // tokens [B,T] int32 in [0, vocab) -> the last norm's output [B,T,D]. ctx.position must be set,
  // with a state to its NextPositions; the state is advanced by T. Where ctx.start is undefined,
  // documents begin at the positions that are 0.
  Var Hidden(Context& ctx, const Tensor& tokens, ModelState* state) const;

  // Mean cross-entropy over the targets that are not -1, in nats, as an fp32 scalar; its gradient
  // is the objective's.
  Var Loss(Context& ctx, const Tensor& tokens, const Tensor& targets) const;

  // Logits [rows, vocab] of the last token of each sequence of a hidden output [B,T,D].
  Var LastLogits(Context& ctx, const Var& hidden) const;

  ModelState NewState(int64_t batch, int64_t capacity) const;
  StateSize States(DType compute) const;
  int64_t vocab_size() const { return vocab_size_; }
  int64_t d_model() const { return config_.d_model; }
  // Parameters that one token does not use.
  int64_t IdleParameters() const;

  struct Layer {
    const LayerConfig* config;
    std::vector<std::shared_ptr<Block>> blocks;
    std::vector<Var> projections;  // concat: one [D,D] a branch
    Var norm_gain, norm_bias, second_gain, second_bias;
    int64_t first_state;
  };
  const std::vector<Layer>& layers() const { return layers_; }
  const ModelConfig& config() const { return config_; }

 private:
  // A value of the residual stream: x, or x + scale f, a sum that is left to the norm after it.
  struct Stream {
    Var x, f;
    float scale = 1;
  };
  static Var Value(Context& ctx, Stream* stream);  // adds up what is left
  // The norm of the stream's value, which it becomes.
  Var Normalise(Context& ctx, Stream* stream, const Var& gain, const Var& bias) const;
  Var ApplyBlocks(Context& ctx, const Layer& layer, const Var& x, ModelState* state) const;
  // x after a layer that keeps no activations; the states of its blocks go through as well.
  Var ApplyRecomputed(Context& ctx, const Layer& layer, const Var& x, ModelState* state) const;
  // The stream after a layer that reads `input`, or the stream itself where that is null.
  Stream ApplyLayer(Context& ctx, const Layer& layer, Stream stream, const Var* input,
                    ModelState* state) const;

  ModelConfig config_;
  int64_t vocab_size_;
  Var embedding_, head_, last_gain_, last_bias_;
  std::vector<Layer> layers_;
  int64_t states_ = 0;
};

}  // namespace tessera

#endif  // TESSERA_ARCH_MODEL_H_
