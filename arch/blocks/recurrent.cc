#include "absl/strings/str_cat.h"
#include "arch/block.h"
#include "arch/stack.h"
#include "core/sizes.h"
#include "ops/pointwise.h"

// Layers that run several times with one set of weights: y = S(S(... S(x))), where S are `layers`.
// Attention and a feed-forward layer twice are the shared blocks of MobileLLM (Liu et al. 2024,
// arXiv:2402.14905); more often, the recurrence in depth of Universal Transformers (Dehghani et al.
// 2018, arXiv:1807.03819). With `inject` each run reads the input once more, as looped transformers
// do (Yang et al. 2023, arXiv:2311.12424): y_1 = S(x), y_{n+1} = S(y_n + x).
//
// The layers have residual paths of their own. Where their stream is to go on as the model's, the
// layer around them has `norm: none` and `residual: false`.

namespace tessera {
namespace {

struct RecurrentConfig {
  int64_t steps = 2;
  bool inject = false;
  StackConfig layers;

  void Fields(FieldList& f) {
    f.Add("steps", steps, Between(1, 1000), "how often the layers run");
    f.Add("inject", inject, "add the input to what each run but the first reads")
        .OnlyWith("`steps: 2` or more", [this] { return steps > 1; });
    f.Add("layers", layers, "what runs, as in `model.layers`; each run has states of its own");
  }
  absl::Status Check(const BlockShape&) const { return absl::OkStatus(); }
  std::vector<HeldLayers> Layers() { return {{&layers, "layers", steps}}; }
};

class Recurrent final : public Block {
 public:
  Recurrent(const RecurrentConfig& c, const BlockShape& in, Parameters& p)
      : steps_(c.steps), inject_(c.inject), stack_(c.layers, in, p) {}

  Var Forward(Context& ctx, const Var& x, State* state) const override {
    Var y = x;
    for (int64_t n = 0; n < steps_; ++n) {
      if (inject_ && n > 0) y = Add(ctx, y, x);
      Context::Scope scope(ctx, absl::StrCat("run", n));
      y = stack_.Forward(ctx, y, state == nullptr ? nullptr : &state->Part(static_cast<size_t>(n)));
    }
    return y;
  }

  StateSize States(DType) const override { return {}; }
  std::vector<HeldStack> Stacks() const override { return {{&stack_, steps_}}; }

 private:
  int64_t steps_;
  bool inject_;
  Stack stack_;
};

}  // namespace

extern constexpr BlockType kRecurrent = DefineBlock<Recurrent, RecurrentConfig>(
    "recurrent", "Layers that run several times", "arXiv:2402.14905");

}  // namespace tessera
