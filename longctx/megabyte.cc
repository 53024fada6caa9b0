#include <algorithm>
#include <optional>
#include <vector>

#include "arch/block.h"
#include "arch/stack.h"
#include "core/sizes.h"
#include "ops/algebra.h"
#include "ops/attention.h"
#include "ops/pointwise.h"
#include "ops/projection.h"
#include "ops/sequence.h"
#include "ops/shape.h"
#include "ops/time.h"

// Layers on patches of the sequence, and layers within each patch (MEGABYTE: Yu et al. 2023,
// arXiv:2305.07185, section 2). A learnt row stands before the first token, so that row r is token
// r - 1 and makes the prediction of token r; patch j is rows jP .. jP + P - 1. The global layers
// read patch j - 1 as one vector of P D channels, a learnt one before the first, and what they make
// of it is added to the rows of patch j, which the local layers then see alone. So a patch is
// predicted from the patches before it and from its own tokens before each.

namespace tessera {
namespace {

struct MegabyteConfig {
  int64_t patch = 8;
  std::optional<int64_t> global_width;
  StackConfig global, layers;

  void Fields(FieldList& f) {
    f.Add("patch", patch, Between(2, 4096), "tokens of a patch");
    f.Add("global_width", global_width, Between(1, kMaxModelWidth),
          "of the layers on patches; none is d_model");
    f.Add("global", global, "what runs on the sequence of patches, as in `model.layers`");
    f.Add("layers", layers, "what runs within each patch, as in `model.layers`");
  }
  absl::Status Check(const BlockShape& in) const {
    if (CheckedProduct({patch, in.D}) <= kMaxWidth) return absl::OkStatus();
    return absl::InvalidArgumentError(std::to_string(patch) + " tokens of " + std::to_string(in.D) +
                                      " channels make a patch wider than " +
                                      std::to_string(kMaxWidth) + "; lower patch or d_model");
  }
  std::vector<HeldLayers> Layers() {
    return {{.layers = &global,
             .key = "global",
             .reshape =
                 [n = patch, width = global_width](BlockShape* in) {
                   if (width) in->D = *width;
                   if (in->max_tokens > 0) in->max_tokens = GroupsOf(in->max_tokens + 1, n);
                 }},
            {.layers = &layers, .key = "layers", .reshape = [n = patch](BlockShape* in) {
               in->max_tokens = n;
             }}};
  }
  Traits TraitsAt(const BlockShape&) const {
    return {.packs = false, .why = "its patches go on from one document into the next"};
  }
};

class Megabyte final : public Block {
 public:
  Megabyte(const MegabyteConfig& c, const BlockShape& in, Parameters& p)
      : n_(c.patch),
        D_(in.D),
        width_(c.global_width.value_or(in.D)),
        first_row_(p.Add("first_row", {in.D}, Normal(0.02), Decay::kNo)),
        first_patch_(p.Add("first_patch", {width_}, Normal(0.02), Decay::kNo)),
        in_(p.Linear("patch_in", {{.rows = width_}}, n_ * in.D)),
        out_(p.Linear("patch_out", {{.rows = n_ * in.D}}, width_)),
        global_(c.global, WithWidth(in, width_), p),
        local_(c.layers, in, p) {}

  Var Forward(Context& ctx, const Var& x, State* state) const override {
    const int64_t B = x.dim(0);
    const bool first_chunk = state == nullptr || state->tokens == 0;
    // The rows of this chunk, of which the first one is row `begin` of the sequence.
    const int64_t begin = first_chunk ? 0 : state->tokens + 1;
    const Var rows =
        first_chunk ? ConcatTime(ctx, std::vector<Var>{Learnt(ctx, first_row_, B, x.dtype()), x})
                    : x;
    const int64_t T = rows.dim(1);
    // The rows before the first patch that begins in the chunk, and how many patches do.
    const int64_t head = std::min(T, (n_ - begin % n_) % n_), patches = GroupsOf(T - head, n_);
    Var from_global;
    if (patches > 0) from_global = Global(ctx, rows, head, patches, first_chunk, state);
    std::vector<Var> parts;
    if (head > 0) {
      const Var before = SliceTime(ctx, state->At("output"), begin % n_, head);
      parts.push_back(Piece(ctx, Add(ctx, SliceTime(ctx, rows, 0, head), before, 1), state));
    }
    const int64_t whole = (T - head) / n_, tail = T - head - whole * n_;
    if (whole > 0) {
      const Var in = Sum(ctx, rows, head, from_global, 0, whole * n_);
      parts.push_back(Whole(ctx, in, whole));
    }
    if (tail > 0) {
      const Var in = Sum(ctx, rows, head + whole * n_, from_global, whole * n_, tail);
      parts.push_back(Piece(ctx, in, state));
    }
    if (state != nullptr) {
      Var& inputs = state->At("inputs");
      inputs = LastRows(ctx, Before(ctx, x, state), rows, n_);
      if (patches > 0) state->At("output") = LastRows(ctx, Var(), from_global, n_);
    }
    const Var y = parts.size() == 1 ? parts[0] : ConcatTime(ctx, parts);
    return first_chunk ? SliceTime(ctx, y, 1, T - 1) : y;
  }

  StateSize States(DType compute) const override {
    return {.fixed_bytes = 2 * n_ * D_ * SizeOf(compute)};
  }
  std::vector<HeldStack> Stacks() const override {
    return {{.stack = &global_, .tokens_each = n_, .lead = 1},
            {.stack = &local_, .lead = 1, .period = n_}};
  }

 private:
  enum { kGlobal, kLocal };  // parts of the state

  static BlockShape WithWidth(BlockShape in, int64_t width) {
    in.D = width;
    return in;
  }
  // A parameter as the same row of each sequence.
  static Var Learnt(Context& ctx, const Var& row, int64_t B, DType dtype) {
    return BroadcastAdd(ctx, Var(ctx.Zeros({B, 1, row.dim(0)}, dtype)), row);
  }
  // The patch of rows before the chunk.
  Var Before(Context& ctx, const Var& x, State* state) const {
    if (state != nullptr)
      if (const Var& inputs = state->At("inputs"); inputs.defined()) return inputs;
    return Var(ctx.Zeros({x.dim(0), n_, D_}, x.dtype()));
  }
  static Var Sum(Context& ctx, const Var& rows, int64_t at, const Var& from_global, int64_t from,
                 int64_t count) {
    return Add(ctx, SliceTime(ctx, rows, at, count), SliceTime(ctx, from_global, from, count), 1);
  }

  // What the global layers give the rows of the patches that begin at rows head, head + n, ...
  Var Global(Context& ctx, const Var& rows, int64_t head, int64_t patches, bool first_chunk,
             State* state) const {
    const int64_t B = rows.dim(0), read = first_chunk ? patches - 1 : patches;
    std::vector<Var> in;
    if (first_chunk) in.push_back(Learnt(ctx, first_patch_, B, rows.dtype()));
    if (read > 0) {
      // Row i of `all` is row i - n of the chunk: the patch before the one that begins at `head`.
      const Var all = ConcatTime(ctx, std::vector<Var>{Before(ctx, rows, state), rows});
      const Var patch = SliceTime(ctx, all, first_chunk ? n_ : head, read * n_);
      in.push_back(Linear(ctx, Reshape(ctx, patch, {B, read, n_ * D_}), in_));
    }
    State* const inside = state == nullptr ? nullptr : &state->Part(kGlobal);
    if (inside != nullptr)
      inside->capacity = state->capacity > 0 ? GroupsOf(state->capacity + 1, n_) : 0;
    const Tensor place = Count(ctx, B, patches, inside == nullptr ? 0 : inside->tokens);
    Var y;
    {
      const OtherSequence other(ctx, place, Tensor());
      Context::Scope scope(ctx, "global");
      y = global_.Forward(ctx, in.size() == 1 ? in[0] : ConcatTime(ctx, in), inside);
    }
    return Reshape(ctx, Linear(ctx, y, out_), {B, patches * n_, D_});
  }

  // The local layers on whole patches, each a sequence of its own.
  Var Whole(Context& ctx, const Var& x, int64_t patches) const {
    const int64_t B = x.dim(0);
    const Tensor place = Count(ctx, B * patches, n_, 0);
    const OtherSequence other(ctx, place, Tensor());
    const Var y = local_.Forward(ctx, Reshape(ctx, x, {B * patches, n_, D_}), nullptr);
    return Reshape(ctx, y, {B, patches * n_, D_});
  }
  // On a part of one.
  Var Piece(Context& ctx, const Var& x, State* state) const {
    State* inside = nullptr;
    int64_t seen = 0;
    if (state != nullptr) {
      inside = &state->Part(kLocal);
      inside->restarts = true;
      inside->capacity = state->capacity > 0 ? n_ : 0;
      seen = inside->tokens;
    }
    const Tensor place = Count(ctx, x.dim(0), x.dim(1), seen);
    const OtherSequence other(ctx, place, Tensor());
    const Var y = local_.Forward(ctx, x, inside);
    if (inside != nullptr && inside->tokens == n_) inside->Restart();
    return y;
  }

  int64_t n_, D_, width_;
  Var first_row_, first_patch_;
  Projection in_, out_;
  Stack global_, local_;
};

}  // namespace

extern constexpr BlockType kMegabyte = DefineBlock<Megabyte, MegabyteConfig>(
    "megabyte", "Layers on patches and within them", "arXiv:2305.07185");

}  // namespace tessera
