#include "arch/model.h"

#include <algorithm>
#include <utility>

#include "ops/ends.h"
#include "ops/noise.h"
#include "ops/sequence.h"

namespace tessera {

ModelState::ModelState(int64_t batch, int64_t capacity)
    : position(static_cast<size_t>(batch), 0), starts_(static_cast<size_t>(batch)) {
  layers.capacity = capacity;
}

void ModelState::MoveTo(int64_t tokens) {
  std::fill(position.begin(), position.end(), tokens);
  layers.MoveTo(tokens);
}

void ModelState::StartDocument(int64_t sequence, int64_t row) {
  std::vector<int64_t>& starts = starts_.at(static_cast<size_t>(sequence));
  TESSERA_CHECK(row >= (starts.empty() ? 0 : starts.back()),
                "a document begins at row %ld, after one at %ld", row,
                starts.empty() ? 0 : starts.back());
  starts.push_back(row);
}

std::vector<int32_t> ModelState::NextPositions(int64_t T) const {
  std::vector<int32_t> next;
  for (size_t b = 0; b < position.size(); ++b) {
    int64_t at = position[b];
    auto start = starts_[b].begin();
    for (int64_t t = 0; t < T; ++t, ++at) {
      for (; start != starts_[b].end() && *start == t; ++start) at = 0;
      next.push_back(static_cast<int32_t>(at));
    }
  }
  return next;
}

void ModelState::Advance(int64_t T) {
  for (size_t b = 0; b < position.size(); ++b) {
    std::vector<int64_t>& starts = starts_[b];
    TESSERA_CHECK(starts.empty() || starts.back() < T,
                  "a document begins at row %ld of a chunk of %ld", starts.back(), T);
    position[b] = starts.empty() ? position[b] + T : T - starts.back();
    starts.clear();
  }
}

namespace {

// The set, told which of the parameters that the model makes are trained.
ParameterSet* Tuned(ParameterSet* parameters, const ModelConfig& config) {
  parameters->Tune(config.tuning);
  return parameters;
}

}  // namespace

Model::Model(const ModelConfig& config, int64_t vocab_size, ParameterSet* parameters)
    : config_(config),
      vocab_size_(vocab_size),
      embedding_(Parameters(Tuned(parameters, config), "model")
                     .Embedding("embedding", vocab_size, config.d_model)),
      stack_(config.layers, {.vocab = vocab_size}, Parameters(parameters, "")) {
  Parameters top(parameters, "model");
  last_norm_ = Norm(top, "last_norm", config.norm, config.norm_eps, config.d_model);
  head_ = config.tie_embeddings ? Projection{.weight = embedding_}
                                : top.Head("head", outputs(), config.d_model);
}

Var Model::Hidden(Context& ctx, const Tensor& tokens, ModelState* state) const {
  if (state != nullptr) state->Advance(tokens.dim(1));
  const bool starts = ctx.position.defined() && !ctx.start.defined();
  Stream stream;
  {
    Context::Scope scope(ctx, "model");
    if (starts) ctx.start = DocumentStarts(ctx, ctx.position);
    stream.x = Dropout(ctx, "embedding", Embedding(ctx, tokens, embedding_),
                       static_cast<float>(config_.dropout));
  }
  stream = stack_.Run(ctx, std::move(stream), state == nullptr ? nullptr : &state->layers);
  ctx.EndPass();
  if (starts) ctx.start = Tensor();
  Context::Scope scope(ctx, "model");
  return stream.Normalise(ctx, last_norm_);
}

Var Model::Loss(Context& ctx, const Tensor& tokens, const Tensor& targets,
                ModelState* state) const {
  return LossOf(ctx, Hidden(ctx, tokens, state), targets);
}

Var Model::LossOf(Context& ctx, const Var& hidden, const Tensor& targets) const {
  Context::Scope scope(ctx, "head");
  return HeadLoss(ctx, hidden, head_, targets);
}

Var Model::LastLogits(Context& ctx, const Var& hidden) const {
  const int64_t B = hidden.dim(0), T = hidden.dim(1), D = hidden.dim(2);
  // The last row of each sequence: rows T-1, 2T-1, ... are a view of every T-th row.
  const Tensor last = hidden.value().Reshape({B, T * D}).Slice((T - 1) * D, D);
  return Logits(ctx, Var(last));
}

Var Model::Logits(Context& ctx, const Var& rows) const { return Linear(ctx, rows, head_); }

}  // namespace tessera
