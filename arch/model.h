#ifndef TESSERA_ARCH_MODEL_H_
#define TESSERA_ARCH_MODEL_H_

#include <cstdint>
#include <vector>

#include "arch/model_config.h"
#include "arch/parameters.h"
#include "arch/parts/norm.h"
#include "arch/stack.h"
#include "arch/traits.h"
#include "ops/context.h"

// A language model: embedding, the layer graph of the config, a last norm, and a head over the
// vocabulary.

namespace tessera {

// What a model remembers of the tokens before: a state for each layer, and where each sequence is
// in its document.
class ModelState {
 public:
  // capacity > 0: for generation of at most that many tokens, caches written in place.
  ModelState(int64_t batch, int64_t capacity);
  int64_t bytes() const { return layers.bytes(); }
  int64_t tokens() const { return layers.tokens; }  // seen so far

  // A document of the sequence begins at this row of the next chunk.
  void StartDocument(int64_t sequence, int64_t row);
  // Where the next T tokens of each sequence are in its document: [B,T].
  std::vector<int32_t> NextPositions(int64_t T) const;
  void Advance(int64_t T);  // behind them
  // As if so many tokens of one document had been seen (State::MoveTo).
  void MoveTo(int64_t tokens);

  std::vector<int64_t> position;  // tokens since the start of the document, one a sequence
  State layers;

 private:
  std::vector<std::vector<int64_t>> starts_;  // by sequence: of documents, in the next chunk
};

class Model {
 public:
  // The config has been checked and placed. Parameters are made in `parameters`, in order, not yet
  // initialised.
  Model(const ModelConfig& config, int64_t vocab_size, ParameterSet* parameters);

  // tokens [B,T] int32 in [0, vocab) -> the last norm's output [B,T,D]. ctx.position must be set,
  // with a state to its NextPositions; the state is advanced by T. Where ctx.start is undefined,
  // documents begin at the positions that are 0.
  Var Hidden(Context& ctx, const Tensor& tokens, ModelState* state) const;

  // Mean cross-entropy over the targets that are not -1, in nats, as an fp32 scalar; its gradient
  // is the objective's.
  // With a state the sequences go on from it, and it is left behind them.
  Var Loss(Context& ctx, const Tensor& tokens, const Tensor& targets,
           ModelState* state = nullptr) const;
  // The same of a hidden output.
  Var LossOf(Context& ctx, const Var& hidden, const Tensor& targets) const;

  // Logits [.., outputs()] of rows of a hidden output.
  Var Logits(Context& ctx, const Var& rows) const;

  // Logits [B, outputs()] of the last token of each sequence of a hidden output [B,T,D].
  Var LastLogits(Context& ctx, const Var& hidden) const;

  ModelState NewState(int64_t batch, int64_t capacity) const { return {batch, capacity}; }
  StateSize States(DType compute) const { return stack_.States(compute); }
  // The length of the shortest sequence that it runs on without a state.
  int64_t least_tokens() const { return TraitsOf(config_.layers).multiple_of; }
  int64_t vocab_size() const { return vocab_size_; }
  // What the head scores: tokens, or the config's classes.
  int64_t outputs() const { return config_.classes.value_or(vocab_size_); }
  int64_t d_model() const { return config_.d_model; }
  const Stack& stack() const { return stack_; }
  const ModelConfig& config() const { return config_; }

 private:
  ModelConfig config_;
  int64_t vocab_size_;
  // In the order in which they are made, which is that of their parameters.
  Var embedding_;
  Stack stack_;
  Norm last_norm_;
  Projection head_;
};

}  // namespace tessera

#endif  // TESSERA_ARCH_MODEL_H_
