#include "arch/model.h"

#include <cmath>
#include <map>

#include "ops/ends.h"
#include "ops/norm.h"
#include "ops/pointwise.h"
#include "ops/product.h"
#include "ops/sequence.h"

namespace tessera {
namespace {

// Gains and biases of one norm; RMS norms have no bias.
void MakeNorm(Parameters& p, const std::string& name, NormKind kind, int64_t width, Var* gain,
              Var* bias) {
  *gain = p.Gain(name, width);
  if (kind == NormKind::kLayer) *bias = p.Bias(name + "_bias", width);
}

}  // namespace

ModelState::ModelState(int64_t blocks, int64_t batch, int64_t capacity)
    : position(static_cast<size_t>(batch), 0),
      states_(static_cast<size_t>(blocks)),
      starts_(static_cast<size_t>(batch)) {
  for (State& s : states_) s.capacity = capacity;
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
  tokens += T;
}

int64_t ModelState::bytes() const {
  int64_t bytes = 0;
  for (const State& s : states_) bytes += s.bytes();
  return bytes;
}

Model::Model(const ModelConfig& config, int64_t vocab_size, ParameterSet* parameters)
    : config_(config), vocab_size_(vocab_size) {
  const int64_t D = config.d_model;
  Parameters top(parameters, "model");
  embedding_ = top.Embedding("embedding", vocab_size, D);
  const BlockShape shape{.D = D, .layers = static_cast<int64_t>(config_.layers.size())};
  std::map<std::string, const Layer*> shared;
  layers_.reserve(config_.layers.size());
  for (const LayerConfig& c : config_.layers) {
    Layer layer{.config = &c, .first_state = states_};
    states_ += static_cast<int64_t>(c.branches.size());
    const auto twin = c.share.empty() ? shared.end() : shared.find(c.share);
    if (twin != shared.end()) {
      const int64_t first_state = layer.first_state;
      layer = *twin->second;
      layer.config = &c;
      layer.first_state = first_state;
    } else {
      Parameters p(parameters, c.path + ".residual");  // apart from the names of its block
      if (c.norm != NormPlace::kNone)
        MakeNorm(p, "norm", config.norm, D, &layer.norm_gain, &layer.norm_bias);
      if (c.norm == NormPlace::kSandwich)
        MakeNorm(p, "second_norm", config.norm, D, &layer.second_gain, &layer.second_bias);
      for (size_t b = 0; b < c.branches.size(); ++b) {
        const std::string branch = c.branches.size() == 1 ? c.path
                                                          : c.path + "[" + std::to_string(b) +
                                                                "]." + c.branches[b].type->name;
        Parameters q(parameters, branch);
        layer.blocks.push_back(c.branches[b].config->Build(shape, q));
        if (c.combine == Join::kConcat && c.branches.size() > 1)
          layer.projections.push_back(p.Weight("project" + std::to_string(b), D, D));
      }
    }
    layers_.push_back(std::move(layer));
    if (!c.share.empty()) shared.emplace(c.share, &layers_.back());
  }
  MakeNorm(top, "last_norm", config.norm, D, &last_gain_, &last_bias_);
  head_ = config.tie_embeddings ? embedding_ : top.Embedding("head", vocab_size, D);
}

Var Model::Value(Context& ctx, Stream* stream) {
  if (stream->f.defined()) *stream = {.x = Add(ctx, stream->x, stream->f, stream->scale)};
  return stream->x;
}

Var Model::Normalise(Context& ctx, Stream* stream, const Var& gain, const Var& bias) const {
  const float eps = static_cast<float>(config_.norm_eps);
  const bool rms = config_.norm == NormKind::kRms;
  if (!stream->f.defined())
    return rms ? RmsNorm(ctx, stream->x, gain, eps) : LayerNorm(ctx, stream->x, gain, bias, eps);
  const auto [x, f, scale] = *stream;
  const SumAndNorm both = rms ? AddRmsNorm(ctx, x, f, scale, gain, eps)
                              : AddLayerNorm(ctx, x, f, scale, gain, bias, eps);
  *stream = {.x = both.sum};
  return both.y;
}

Var Model::ApplyBlocks(Context& ctx, const Layer& layer, const Var& x, ModelState* state) const {
  Var sum;
  const size_t n = layer.blocks.size();
  for (size_t b = 0; b < n; ++b) {
    State* const memory =
        state == nullptr ? nullptr : state->At(layer.first_state + static_cast<int64_t>(b));
    Var y;
    if (n == 1) {
      y = layer.blocks[b]->Forward(ctx, x, memory);
    } else {
      Context::Scope scope(ctx, std::to_string(b) + "." + layer.config->branches[b].type->name);
      y = layer.blocks[b]->Forward(ctx, x, memory);
    }
    if (memory != nullptr) memory->tokens += x.dim(1);
    // A projection of a concatenation is the sum of a projection of each part.
    if (!layer.projections.empty()) y = Linear(ctx, y, layer.projections[b], Var());
    sum = b == 0 ? y : Add(ctx, sum, y, 1);
  }
  if (layer.config->combine == Join::kMean && n > 1)
    sum = Activate(ctx, Activation::kIdentity, sum, 1 / static_cast<float>(n));
  return sum;
}

Model::Stream Model::ApplyLayer(Context& ctx, const Layer& layer, Stream stream, const Var* input,
                                ModelState* state) const {
  const LayerConfig& c = *layer.config;
  const bool normalised = c.norm == NormPlace::kPre || c.norm == NormPlace::kSandwich;
  Stream other;
  if (input != nullptr) other.x = *input;
  Stream* const from = input != nullptr ? &other : &stream;
  const Var x =
      normalised ? Normalise(ctx, from, layer.norm_gain, layer.norm_bias) : Value(ctx, from);
  Var y = ApplyBlocks(ctx, layer, x, state);
  if (c.norm == NormPlace::kSandwich) {
    Stream branch = {.x = y};
    y = Normalise(ctx, &branch, layer.second_gain, layer.second_bias);
  }
  Stream sum = {.x = Value(ctx, &stream), .f = y, .scale = static_cast<float>(c.residual_scale)};
  if (c.norm != NormPlace::kPost) return sum;
  return {.x = Normalise(ctx, &sum, layer.norm_gain, layer.norm_bias)};
}

Var Model::ApplyRecomputed(Context& ctx, const Layer& layer, const Var& x,
                           ModelState* state) const {
  // What the layer's blocks remember is one list of values, before it and after it.
  using Names = std::vector<std::pair<int64_t, std::string>>;  // block, entry
  const int64_t first = layer.first_state, end = first + static_cast<int64_t>(layer.blocks.size());
  const auto list = [first, end](ModelState* of, Context::Vars* values) {
    Names names;
    for (int64_t b = first; b < end && of != nullptr; ++b)
      for (const auto& [name, value] : of->At(b)->entries()) {
        names.emplace_back(b, name);
        values->push_back(value);
      }
    return names;
  };
  Context::Vars in = {x};
  const Names before = list(state, &in);
  const auto after = std::make_shared<Names>();
  const int64_t tokens = state == nullptr ? -1 : state->At(first)->tokens;
  const auto run = [=, this, &layer](Context& inner, const Context::Vars& values) {
    ModelState memory = NewState(values[0].dim(0), 0);
    for (int64_t b = first; b < end; ++b) memory.At(b)->tokens = tokens;
    for (size_t i = 0; i < before.size(); ++i)
      memory.At(before[i].first)->At(before[i].second) = values[i + 1];
    ModelState* const given = tokens < 0 ? nullptr : &memory;
    Stream stream = ApplyLayer(inner, layer, {.x = values[0]}, nullptr, given);
    Context::Vars out = {Value(inner, &stream)};
    *after = list(given, &out);
    return out;
  };
  const Context::Vars out = ctx.Recompute(in, run);
  for (size_t i = 0; i < after->size(); ++i)
    state->At((*after)[i].first)->At((*after)[i].second) = out[i + 1];
  for (int64_t b = first; b < end && state != nullptr; ++b) state->At(b)->tokens += x.dim(1);
  return out[0];
}

Var Model::Hidden(Context& ctx, const Tensor& tokens, ModelState* state) const {
  if (state != nullptr) state->Advance(tokens.dim(1));
  const bool starts = ctx.position.defined() && !ctx.start.defined();
  Stream stream;
  {
    Context::Scope scope(ctx, "model");
    if (starts) ctx.start = DocumentStarts(ctx, ctx.position);
    stream.x = Embedding(ctx, tokens, embedding_);
  }
  std::map<std::string, Var> named;
  for (const Layer& layer : layers_) {
    const LayerConfig& c = *layer.config;
    Context::Scope scope(ctx, c.path);
    ctx.edge = c.name;
    if (!c.input.empty()) {
      stream = ApplyLayer(ctx, layer, stream, &named.at(c.input), state);
    } else if (c.recompute && ctx.recording()) {
      stream = {.x = ApplyRecomputed(ctx, layer, Value(ctx, &stream), state)};
    } else {
      stream = ApplyLayer(ctx, layer, stream, nullptr, state);
    }
    if (!c.name.empty()) named[c.name] = Value(ctx, &stream);
  }
  ctx.edge.clear();
  ctx.edges.clear();
  if (starts) ctx.start = Tensor();
  Context::Scope scope(ctx, "model");
  return Normalise(ctx, &stream, last_gain_, last_bias_);
}

Var Model::Loss(Context& ctx, const Tensor& tokens, const Tensor& targets) const {
  const Var hidden = Hidden(ctx, tokens, nullptr);
  Context::Scope scope(ctx, "head");
  return HeadLoss(ctx, hidden, head_, targets);
}

Var Model::LastLogits(Context& ctx, const Var& hidden) const {
  const int64_t B = hidden.dim(0), T = hidden.dim(1), D = hidden.dim(2);
  // The last row of each sequence: rows T-1, 2T-1, ... are a view of every T-th row.
  const Tensor last = hidden.value().Reshape({B, T * D}).Slice((T - 1) * D, D);
  return Linear(ctx, Var(last), head_, Var());
}

ModelState Model::NewState(int64_t batch, int64_t capacity) const {
  return ModelState(states_, batch, capacity);
}

StateSize Model::States(DType compute) const {
  StateSize total;
  for (const Layer& layer : layers_)
    for (const auto& block : layer.blocks) {
      const StateSize s = block->States(compute);
      total.fixed_bytes += s.fixed_bytes;
      // A bounded cache is, in the long run, a fixed cost.
      if (s.max_tokens >= 0) {
        total.fixed_bytes += s.bytes_per_token * s.max_tokens;
      } else {
        total.bytes_per_token += s.bytes_per_token;
      }
    }
  return total;
}

int64_t Model::IdleParameters() const {
  int64_t idle = 0;
  std::map<const Block*, bool> seen;
  for (const Layer& layer : layers_)
    for (const auto& block : layer.blocks)
      if (!seen[block.get()]) {
        seen[block.get()] = true;
        idle += block->IdleParameters();
      }
  return idle;
}

}  // namespace tessera
