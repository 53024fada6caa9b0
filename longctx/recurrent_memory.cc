#include <algorithm>
#include <vector>

#include "arch/block.h"
#include "arch/stack.h"
#include "core/sizes.h"
#include "ops/algebra.h"
#include "ops/sequence.h"
#include "ops/shape.h"

// Layers on one segment of the sequence after the other, with tokens of memory between them
// (Recurrent Memory Transformer: Bulatov et al. 2022, arXiv:2207.06881, section 3.2): segment s is
// read as [m_s; x_s; m_s], and what the layers make of the last memory tokens, which see the whole
// segment, is m_{s+1}; the first memory is learnt. Nothing else goes from one segment into the
// next, so the state is the memory and what the layers keep of the segment that runs.

namespace tessera {
namespace {

struct RecurrentMemoryConfig {
  int64_t segment = 64, tokens = 8;
  bool gradient = true;
  StackConfig layers;

  void Fields(FieldList& f) {
    f.Add("segment", segment, Between(1, kMaxSeq), "tokens that the layers see at a time");
    f.Add("tokens", tokens, Between(1, 4096), "of memory");
    f.Add("gradient", gradient, "whether it flows from a segment into those before, or ends there");
    f.Add("layers", layers, "what runs on a segment, as in `model.layers`");
  }
  absl::Status Check(const BlockShape&) const { return absl::OkStatus(); }
  int64_t Rows() const { return segment + 2 * tokens; }
  std::vector<HeldLayers> Layers() {
    return {{.layers = &layers, .key = "layers", .reshape = [rows = Rows()](BlockShape* in) {
               in->max_tokens = rows;
             }}};
  }
  Traits TraitsAt(const BlockShape&) const {
    return {.packs = false, .why = "its segments are counted from the start of the sequence"};
  }
};

class RecurrentMemory final : public Block {
 public:
  RecurrentMemory(const RecurrentMemoryConfig& c, const BlockShape& in, Parameters& p)
      : config_(c),
        D_(in.D),
        first_(p.Add("memory", {c.tokens, in.D}, Normal(0.02), Decay::kNo)),
        stack_(c.layers, in, p) {}

  Var Forward(Context& ctx, const Var& x, State* state) const override {
    const int64_t T = x.dim(1);
    Var memory = state == nullptr ? Var() : state->At("memory");
    if (!memory.defined()) memory = First(ctx, x);
    std::vector<Var> parts;
    for (int64_t t = 0, n; t < T; t += n) {
      // Where in its segment the piece begins, and how much of it is in this chunk.
      const int64_t from = ((state == nullptr ? 0 : state->tokens) + t) % config_.segment;
      n = std::min(T - t, config_.segment - from);
      const bool ends = from + n == config_.segment;
      // Nobody reads the memory behind the last segment of a sequence without a state.
      const bool writes = ends && (state != nullptr || t + n < T);
      parts.push_back(Run(ctx, SliceTime(ctx, x, t, n), from == 0, writes, &memory, state));
    }
    if (state != nullptr) state->At("memory") = memory;
    return parts.size() == 1 ? parts[0] : ConcatTime(ctx, parts);
  }

  StateSize States(DType compute) const override {
    return {.fixed_bytes = config_.tokens * D_ * SizeOf(compute)};
  }
  std::vector<HeldStack> Stacks() const override {
    return {{.stack = &stack_, .period = config_.segment, .extra = config_.tokens}};
  }

 private:
  // The memory before the first segment: the same for each sequence.
  Var First(Context& ctx, const Var& x) const {
    const Var zeros(ctx.Zeros({x.dim(0), 1, config_.tokens * D_}, x.dtype()));
    const Var row = Reshape(ctx, first_, {config_.tokens * D_});
    return Reshape(ctx, BroadcastAdd(ctx, zeros, row), {x.dim(0), config_.tokens, D_});
  }

  // The layers on a piece of a segment, the memory before it where it begins one, and behind it
  // where it writes the next.
  Var Run(Context& ctx, const Var& x, bool begins, bool writes, Var* memory, State* state) const {
    const int64_t before = begins ? config_.tokens : 0, n = x.dim(1);
    std::vector<Var> rows;
    if (begins) rows.push_back(*memory);
    rows.push_back(x);
    if (writes) rows.push_back(*memory);
    const Var in = rows.size() == 1 ? x : ConcatTime(ctx, rows);
    const Var y = OnSegment(ctx, in, begins, writes, state);
    if (writes) {
      *memory = SliceTime(ctx, y, before + n, config_.tokens);
      if (!config_.gradient) *memory = memory->Detach();
    }
    return rows.size() == 1 ? y : SliceTime(ctx, y, before, n);
  }

  // A segment that runs as a whole leaves nothing behind.
  Var OnSegment(Context& ctx, const Var& in, bool begins, bool ends, State* state) const {
    const bool whole = state == nullptr || (begins && ends);
    State* const inside = whole ? nullptr : &state->Part(0);
    int64_t seen = 0;
    if (inside != nullptr) {
      inside->restarts = true;
      if (begins) inside->Restart();
      inside->capacity = state->capacity > 0 ? config_.Rows() : 0;
      seen = inside->tokens;
    }
    const Tensor position = Count(ctx, in.dim(0), in.dim(1), seen);
    const OtherSequence other(ctx, position, Tensor());
    const Var y = stack_.Forward(ctx, in, inside);
    if (inside != nullptr && ends) inside->Restart();
    return y;
  }

  RecurrentMemoryConfig config_;
  int64_t D_;
  Var first_;
  Stack stack_;
};

}  // namespace

extern constexpr BlockType kRecurrentMemory = DefineBlock<RecurrentMemory, RecurrentMemoryConfig>(
    "recurrent_memory", "Segments with memory tokens between them", "arXiv:2207.06881");

}  // namespace tessera
