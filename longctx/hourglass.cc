#include <vector>

#include "absl/strings/str_cat.h"
#include "arch/block.h"
#include "arch/stack.h"
#include "ops/attention.h"
#include "ops/sequence.h"
#include "ops/shape.h"
#include "ops/time.h"

// Layers on a shorter sequence (Hourglass: Nawrot et al. 2021, arXiv:2110.13711, section 2;
// Funnel-Transformer: Dai et al. 2020, arXiv:2006.03236): with z_j the mean of tokens jn - n + 1 ..
// jn, y_t = S(z)_{floor(t / n)}, where S are `layers`. A group ends where the outputs that it makes
// begin, so no token sees a later one (the shift right by n - 1 of section 2.3); tokens before the
// first are zero. In the paper the layer around it has no norm of its own: `norm: none`.

namespace tessera {
namespace {

struct HourglassConfig {
  int64_t shorten = 4;
  StackConfig layers;

  void Fields(FieldList& f) {
    f.Add("shorten", shorten, Between(2, 4096), "tokens that become one");
    f.Add("layers", layers, "what runs on the shorter sequence, as in `model.layers`");
  }
  absl::Status Check(const BlockShape&) const { return absl::OkStatus(); }
  std::vector<HeldLayers> Layers() {
    return {{.layers = &layers, .key = "layers", .reshape = [n = shorten](BlockShape* in) {
               in->max_tokens = GroupsOf(in->max_tokens, n);
             }}};
  }
  Traits TraitsAt(const BlockShape&) const {
    return {.packs = false, .why = "its groups of tokens go on from one document into the next"};
  }
};

class Hourglass final : public Block {
 public:
  Hourglass(const HourglassConfig& c, const BlockShape& in, Parameters& p)
      : n_(c.shorten), D_(in.D), stack_(c.layers, in, p) {}

  Var Forward(Context& ctx, const Var& x, State* state) const override {
    const int64_t T = x.dim(1), seen = state == nullptr ? 0 : state->tokens;
    // The first row of the chunk that ends a group, and how many do.
    const int64_t first = (n_ - seen % n_) % n_;
    const int64_t groups = T > first ? GroupsOf(T - first, n_) : 0;
    std::vector<Var> parts;
    if (first > 0) parts.push_back(Repeat(ctx, Output(state), first, std::min(first, T)));
    if (groups > 0) {
      const Var shorter = Run(ctx, x, first, groups, state);
      if (state != nullptr) state->At("output") = LastRows(ctx, Var(), shorter, 1);
      parts.push_back(Repeat(ctx, shorter, n_, T - first));
    }
    if (state != nullptr) {
      Var& inputs = state->At("inputs");
      inputs = LastRows(ctx, Before(ctx, x, state), x, n_ - 1);
    }
    return parts.size() == 1 ? parts[0] : ConcatTime(ctx, parts);
  }

  StateSize States(DType compute) const override {
    return {.fixed_bytes = n_ * D_ * SizeOf(compute)};
  }
  std::vector<HeldStack> Stacks() const override { return {{.stack = &stack_, .tokens_each = n_}}; }

 private:
  // What the group made that the first rows of a chunk belong to.
  static const Var& Output(State* state) {
    const Var& output = state->At("output");
    TESSERA_CHECK(output.defined(), "%ld tokens were seen without an output", state->tokens);
    return output;
  }
  // The n - 1 tokens before the chunk.
  Var Before(Context& ctx, const Var& x, State* state) const {
    if (state != nullptr)
      if (const Var& inputs = state->At("inputs"); inputs.defined()) return inputs;
    return Var(ctx.Zeros({x.dim(0), n_ - 1, D_}, x.dtype()));
  }
  // The outputs of the groups that end in the chunk, at rows first, first + n, ...
  Var Run(Context& ctx, const Var& x, int64_t first, int64_t groups, State* state) const {
    // Row i of `all` is row i - (n - 1) of the chunk, so the group that ends at row first + jn of
    // the chunk begins at row first + jn of `all`.
    const Var all = ConcatTime(ctx, std::vector<Var>{Before(ctx, x, state), x});
    const Var shorter = Pool(ctx, SliceTime(ctx, all, first, groups * n_), n_);
    Tensor position;
    if (ctx.position.defined())
      position = Positions(ctx, ctx.position,
                           {.first = first, .count = groups, .step = n_, .divisor = n_});
    const OtherSequence other(ctx, position, Tensor());
    if (state == nullptr) return stack_.Forward(ctx, shorter, nullptr);
    State& inside = state->Part(0);
    inside.capacity = GroupsOf(state->capacity, n_);
    return stack_.Forward(ctx, shorter, &inside);
  }

  int64_t n_, D_;
  Stack stack_;
};

}  // namespace

extern constexpr BlockType kHourglass = DefineBlock<Hourglass, HourglassConfig>(
    "hourglass", "Layers on a shorter sequence", "arXiv:2110.13711");

}  // namespace tessera
