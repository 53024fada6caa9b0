#include "arch/stack.h"

#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "ops/noise.h"
#include "ops/pointwise.h"
#include "ops/projection.h"

namespace tessera {

Var Stream::Value(Context& ctx) {
  if (f.defined()) *this = {.x = Add(ctx, x, f, scale)};
  return x;
}

Var Stream::Normalise(Context& ctx, const Norm& norm) {
  if (!f.defined()) return norm.Of(ctx, x);
  const SumAndNorm both = norm.OfSum(ctx, x, f, scale);
  *this = {.x = both.sum};
  return both.y;
}

Stack::Stack(const StackConfig& config, const BlockShape& in, const Parameters& p) {
  std::map<std::string, std::string> lenders;  // the place of the first layer of each name
  for (const LayerConfig& c : config.list) {
    TESSERA_CHECK(!c.place.empty(), "a stack in %s was not placed", p.path().c_str());
    const auto lender = lenders.find(c.share);
    layers_.push_back(MakeLayer(c, in,
                                lender != lenders.end() ? p.Sharing(c.place, lender->second, c.lora)
                                : c.lora                ? p.AtWith(c.place, *c.lora)
                                                        : p.At(c.place)));
    if (!c.share.empty()) lenders.emplace(c.share, c.place);
  }
}

Stack::Layer Stack::MakeLayer(const LayerConfig& c, const BlockShape& in,
                              const Parameters& own) const {
  Layer layer{.config = c};
  Parameters around = own.At("residual");  // apart from the names of its block
  const BlockShape& shape = c.branches[0].shape;
  if (c.norm != NormPlace::kNone)
    layer.norm = Norm(around, "norm", shape.norm, shape.norm_eps, shape.D);
  if (c.norm == NormPlace::kSandwich)
    layer.second_norm = Norm(around, "second_norm", shape.norm, shape.norm_eps, shape.D);
  for (size_t b = 0; b < c.branches.size(); ++b) {
    const BranchConfig& branch = c.branches[b];
    Parameters q =
        c.branches.size() == 1 ? own : own.At(absl::StrCat("[", b, "].", branch.type->name));
    BlockShape told = branch.shape;
    told.vocab = in.vocab;
    layer.blocks.push_back(branch.config->Build(told, q));
    if (c.combine == Join::kConcat && c.branches.size() > 1)
      layer.projections.push_back(around.Linear(absl::StrCat("project", b), shape.D, shape.D));
  }
  return layer;
}

Var Stack::RunBlocks(Context& ctx, const Layer& layer, const Var& x, State* state) const {
  Var sum;
  const size_t n = layer.blocks.size();
  for (size_t b = 0; b < n; ++b) {
    const BranchConfig& branch = layer.config.branches[b];
    State* const memory = state == nullptr || n == 1 ? state : &state->Part(b);
    const Context::Ports* const outer = std::exchange(ctx.ports, &branch.ports);
    Var y;
    if (n == 1) {
      y = layer.blocks[b]->Forward(ctx, x, memory);
    } else {
      Context::Scope scope(ctx, absl::StrCat("[", b, "].", branch.type->name));
      y = layer.blocks[b]->Forward(ctx, x, memory);
    }
    ctx.ports = outer;
    if (memory != state) memory->tokens += x.dim(1);
    // A projection of a concatenation is the sum of a projection of each part.
    if (!layer.projections.empty()) y = Linear(ctx, y, layer.projections[b]);
    sum = b == 0 ? y : Add(ctx, sum, y, 1);
  }
  if (state != nullptr) state->tokens += x.dim(1);
  if (layer.config.combine == Join::kMean && n > 1)
    sum = Activate(ctx, Activation::kIdentity, sum, 1 / static_cast<float>(n));
  return sum;
}

Stream Stack::RunLayer(Context& ctx, const Layer& layer, Stream stream, State* state) const {
  const LayerConfig& c = layer.config;
  const bool normalised = c.norm == NormPlace::kPre || c.norm == NormPlace::kSandwich;
  Stream other;
  if (!c.input_address.empty()) other.x = ctx.board.at(c.input_address).front();
  Stream* const from = c.input_address.empty() ? &stream : &other;
  const Var x = normalised ? from->Normalise(ctx, layer.norm) : from->Value(ctx);
  Var y = RunBlocks(ctx, layer, x, state);
  const double rate = c.dropout.value_or(c.branches[0].shape.dropout);
  y = Dropout(ctx, "residual", y, static_cast<float>(rate));
  if (c.norm == NormPlace::kSandwich) y = layer.second_norm.Of(ctx, y);
  Stream sum = {.x = y};
  if (c.residual)
    sum = {.x = stream.Value(ctx), .f = y, .scale = static_cast<float>(c.residual_scale)};
  if (c.norm == NormPlace::kPost) sum = {.x = sum.Normalise(ctx, layer.norm)};
  if (!c.output_address.empty()) ctx.board[c.output_address] = {sum.Value(ctx)};
  return sum;
}

Stream Stack::RunAgain(Context& ctx, const Layer& layer, const Var& x, State* state) const {
  // One list of values goes in: x, what is read from the board, the state. Another comes out.
  using Board = std::vector<std::pair<std::string, size_t>>;  // address, values
  using Vars = Context::Vars;
  const auto append = [](const Vars& values, Vars* all) {
    all->insert(all->end(), values.begin(), values.end());
  };
  Vars in = {x};
  Board reads;
  for (const std::string& address : layer.config.outside) {
    append(ctx.board.at(address), &in);
    reads.emplace_back(address, ctx.board.at(address).size());
  }
  std::shared_ptr<State> before;
  if (state != nullptr) {
    append(state->Values(), &in);
    before = std::make_shared<State>(state->Outline());
  }
  std::vector<std::string> addresses;
  if (!layer.config.output_address.empty()) addresses.push_back(layer.config.output_address);
  for (const BranchConfig& b : layer.config.branches)
    for (const auto& [port, address] : b.ports.leaves) addresses.push_back(address);
  const auto leaves = std::make_shared<Board>();
  const auto after = std::make_shared<State>();
  const auto run = [=, this, &layer](Context& inner, const Vars& values) {
    std::map<std::string, Vars> board;
    auto next = values.begin() + 1;
    for (const auto& [address, n] : reads) {
      board[address] = Vars(next, next + static_cast<std::ptrdiff_t>(n));
      next += static_cast<std::ptrdiff_t>(n);
    }
    State memory;
    if (before != nullptr) {
      memory = before->Outline();
      memory.SetValues(std::span(next, values.end()));
    }
    board.swap(inner.board);
    Stream stream = RunLayer(inner, layer, {.x = values[0]}, before == nullptr ? nullptr : &memory);
    Vars out = {stream.Value(inner)};
    board.swap(inner.board);
    leaves->clear();
    for (const std::string& address : addresses) {
      append(board.at(address), &out);
      leaves->emplace_back(address, board.at(address).size());
    }
    append(memory.Values(), &out);
    *after = memory.Outline();
    return out;
  };
  const Vars out = ctx.Recompute(in, run);
  auto next = out.begin() + 1;
  for (const auto& [address, n] : *leaves) {
    ctx.board[address] = Vars(next, next + static_cast<std::ptrdiff_t>(n));
    next += static_cast<std::ptrdiff_t>(n);
  }
  if (state != nullptr) {
    *state = std::move(*after);
    state->SetValues(std::span(next, out.end()));
  }
  return {.x = out[0]};
}

Stream Stack::Run(Context& ctx, Stream stream, State* state) const {
  const int64_t T = stream.x.dim(1);
  for (size_t i = 0; i < layers_.size(); ++i) {
    const Layer& layer = layers_[i];
    Context::Scope scope(ctx, layer.config.place);
    State* const memory = state == nullptr ? nullptr : &state->Part(i);
    if (layer.config.recompute && ctx.recording()) {
      stream = RunAgain(ctx, layer, stream.Value(ctx), memory);
    } else {
      stream = RunLayer(ctx, layer, std::move(stream), memory);
    }
  }
  if (state != nullptr) state->tokens += T;
  for (const Layer& layer : layers_) {
    ctx.board.erase(layer.config.output_address);
    for (const BranchConfig& b : layer.config.branches)
      for (const auto& [port, address] : b.ports.leaves) ctx.board.erase(address);
  }
  return stream;
}

Var Stack::Forward(Context& ctx, const Var& x, State* state) const {
  Stream stream = Run(ctx, {.x = x}, state);
  return stream.Value(ctx);
}

StateSize StatesOf(const Block& block, DType compute) {
  StateSize size = block.States(compute);
  for (const HeldStack& held : block.Stacks()) size += held.StatesOf(held.stack->States(compute));
  return size;
}

StateSize Stack::States(DType compute) const {
  StateSize total;
  for (const Layer& layer : layers_)
    for (const auto& block : layer.blocks) total += StatesOf(*block, compute);
  return total;
}

}  // namespace tessera
