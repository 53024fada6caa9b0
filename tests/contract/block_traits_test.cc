#include "tests/contract/block_traits.h"

#include <gtest/gtest.h>

#include "arch/model.h"
#include "arch/placement.h"
#include "arch/registry.h"
#include "generate/generator.h"
#include "tests/contract/block_contract.h"

// A block that is not like most, in each way that one can be, with and without saying so: the
// contract sees what happens, and every claim that is false.

namespace tessera::testing {
namespace {

enum class Quirk {
  kNone,
  kLast,            // y_t = x_t + x_last
  kLastInTraining,  // the same in training
  kBefore,          // x_t + x_{t-1}, whatever document that is of
  kFirstRow,        // x_t + the batch's first row, in training
  kForgets,         // x_t + x of the document's start, or of the chunk's where that is later
  kFours,           // runs on a multiple of 4 tokens
  kShort,           // runs on at most 70 tokens
};

struct QuirkConfig {
  Quirk does = Quirk::kNone, says = Quirk::kNone;
  bool why = true;

  void Fields(FieldList& f) {
    const auto add = [&](const char* key, Quirk& q) {
      f.Add(key, q,
            {{"none", Quirk::kNone},
             {"last", Quirk::kLast},
             {"last_in_training", Quirk::kLastInTraining},
             {"before", Quirk::kBefore},
             {"first_row", Quirk::kFirstRow},
             {"forgets", Quirk::kForgets},
             {"fours", Quirk::kFours},
             {"short", Quirk::kShort}},
            "");
    };
    add("does", does);
    add("says", says);
    f.Add("why", why, "");
  }
  absl::Status Check(const BlockShape&) const { return absl::OkStatus(); }
  Traits TraitsAt(const BlockShape&) const {
    Traits t;
    switch (says) {
      case Quirk::kNone:
        return t;
      case Quirk::kLast:
        t = {.causal = Causal::kNever, .packs = false, .decodes = false};
        break;
      case Quirk::kLastInTraining:
        t.causal = Causal::kInInference;
        break;
      case Quirk::kBefore:
        t.packs = false;
        break;
      case Quirk::kFirstRow:
        t.mixes_rows = true;
        break;
      case Quirk::kForgets:
        t.decodes = false;
        break;
      case Quirk::kFours:
        t.multiple_of = 4;
        break;
      case Quirk::kShort:
        t.max_tokens = 70;
        break;
    }
    t.why = why ? "it is a test" : "";
    return t;
  }
};

class Quirky final : public Block {
 public:
  Quirky(const QuirkConfig& c, const BlockShape&, Parameters&) : does_(c.does) {}

  Var Forward(Context& ctx, const Var& x, State* state) const override {
    const int64_t B = x.dim(0), T = x.dim(1), D = x.dim(2);
    TESSERA_CHECK(does_ != Quirk::kFours || state != nullptr || T % 4 == 0, "%ld tokens", T);
    TESSERA_CHECK(does_ != Quirk::kShort || state != nullptr || T <= 70, "%ld tokens", T);
    const Tensor y = ctx.New(x.shape(), x.dtype());
    if (ctx.device() == Device::kMeta) return Var(y);
    for (int64_t b = 0; b < B; ++b)
      for (int64_t t = 0; t < T; ++t)
        for (int64_t i = 0; i < D; ++i) {
          const float* more = Other(ctx, x, state, b, t);
          y.data<float>()[(b * T + t) * D + i] =
              x.data<float>()[(b * T + t) * D + i] + (more == nullptr ? 0 : more[i]);
        }
    if (state != nullptr && does_ == Quirk::kBefore) {
      const Tensor last = ctx.New({B, 1, D}, x.dtype());
      for (int64_t b = 0; b < B; ++b)
        std::copy_n(x.data<float>() + (b * T + T - 1) * D, D, last.data<float>() + b * D);
      state->At("last") = Var(last);
    }
    return Var(y);
  }
  StateSize States(DType) const override { return {}; }

 private:
  // The token that is added to token t of row b; null: none.
  const float* Other(Context& ctx, const Var& x, State* state, int64_t b, int64_t t) const {
    const int64_t T = x.dim(1), D = x.dim(2);
    const auto token = [&](int64_t row, int64_t at) {
      return x.data<float>() + (row * T + at) * D;
    };
    switch (does_) {
      case Quirk::kLast:
        return token(b, T - 1);
      case Quirk::kLastInTraining:
        return ctx.training ? token(b, T - 1) : nullptr;
      case Quirk::kBefore:
        if (t > 0) return token(b, t - 1);
        if (state == nullptr || !state->At("last").defined()) return nullptr;
        return state->At("last").data<float>() + b * D;
      case Quirk::kFirstRow:
        return ctx.training ? token(0, t) : nullptr;
      case Quirk::kForgets:
        return token(b, std::max<int64_t>(0, t - ctx.position.data<int32_t>()[b * T + t]));
      default:
        return nullptr;
    }
  }

  Quirk does_;
};

constexpr BlockType kQuirky = DefineBlock<Quirky, QuirkConfig>("quirky", "", "");

std::string Wrong(const std::string& config) {
  Subject s({.block = "quirky", .config = config, .D = 8, .type = &kQuirky}, Device::kCpu);
  return FalseTraits(s);
}

TEST(BlockTraits, WhatHappensIsClaimedAndWhatIsClaimedHappens) {
  const std::map<std::string, std::pair<std::string, std::string>> quirks = {
      // what is said of one that does and does not say, and of one that says and does not
      {"last",
       {"a token sees later ones, and it does not say so\na token sees later ones in training, and "
        "it does not say so\nthe documents of a sequence mix, and it does not say so\nchunks are "
        "not the whole, and it does not say so\n",
        "it says that a token sees later ones, and that does not happen\nit says that the "
        "documents "
        "of a sequence mix, and that does not happen\nit says that chunks are not the whole, and "
        "that does not happen\n"}},
      {"last_in_training",
       {"a token sees later ones in training, and it does not say so\n",
        "it says that a token sees later ones in training, and that does not happen\n"}},
      {"before",
       {"the documents of a sequence mix, and it does not say so\n",
        "it says that the documents of a sequence mix, and that does not happen\n"}},
      {"first_row",
       {"the sequences of a batch mix in training, and it does not say so\n",
        "it says that the sequences of a batch mix in training, and that does not happen\n"}},
      {"forgets",
       {"chunks are not the whole, and it does not say so\n",
        "it says that chunks are not the whole, and that does not happen\n"}},
      {"fours",
       {"it does not run on any length\n",
        "it says that it needs a multiple of some tokens, and runs on any\n"}},
      {"short",
       {"it does not run on a long sequence\n",
        "it says that there is a longest sequence, and runs on a longer one\n"}}};
  EXPECT_EQ(Wrong("{}"), "");
  for (const auto& [quirk, wrong] : quirks) {
    EXPECT_EQ(Wrong("{does: " + quirk + ", says: " + quirk + "}"), "") << quirk;
    EXPECT_EQ(Wrong("{does: " + quirk + "}"), wrong.first) << quirk;
    EXPECT_EQ(Wrong("{says: " + quirk + "}"), wrong.second) << quirk;
  }
  EXPECT_EQ(Wrong("{does: before, says: before, why: false}"), "it does not say why\n");
}

// --- What the builder refuses ---

// `{quirky: CONFIG}`, inside of a block that runs it twice where `held`.
StackConfig With(const std::string& config, bool held) {
  BranchConfig b{.type = &kQuirky, .config = kQuirky.make_config(), .where = {"m.yaml", 7, 5}};
  EXPECT_TRUE(ReadFields(config, *b.config).ok());
  if (!held) return {{{.branches = {b}}}};
  const BlockType* type = FindBlock("recurrent");
  BranchConfig outer{.type = type, .config = type->make_config(), .where = {"m.yaml", 6, 5}};
  outer.config->Layers()[0].layers->list = {{.branches = {b}}};
  return {{{.branches = {outer}}}};
}

std::string Refused(const std::string& config, bool held, int64_t seq, bool packed) {
  ErrorList errors;
  ModelConfig model{.d_model = 8, .layers = With(config, held)};
  PlaceLayers(&model, {.max_tokens = seq, .packed = packed}, &errors);
  return std::string(errors.ToStatus().message());
}

TEST(BlockTraits, TrainingOnWhatABlockCannotDoIsRefused) {
  for (const bool held : {false, true}) {
    const std::string at = held ? "m.yaml:7:5: layers[0].recurrent.layers[0].quirky: "
                                : "m.yaml:7:5: layers[0].quirky: ";
    EXPECT_EQ(Refused("{says: fours}", held, 64, true), "");
    EXPECT_EQ(
        Refused("{says: fours}", held, 63, false),
        at + "runs on sequences of a multiple of 4 tokens, and train.seq gives it 63, since it "
             "is a test");
    EXPECT_EQ(Refused("{says: short}", held, 70, false), "");
    EXPECT_EQ(
        Refused("{says: short}", held, 71, false),
        at + "runs on sequences of at most 70 tokens, and train.seq gives it 71, since it is a "
             "test");
    EXPECT_EQ(Refused("{says: before}", held, 64, false), "");
    EXPECT_EQ(
        Refused("{says: before}", held, 64, true),
        at + "cannot keep the documents of train.data apart; use data without documents, since "
             "it is a test");
  }
}

TEST(BlockTraits, GenerationWithoutAStateOrWithLaterTokensIsRefused) {
  const auto refused = [](const std::string& config) {
    ErrorList errors;
    ModelConfig layers{.d_model = 8, .layers = With(config, true)};
    PlaceLayers(&layers, {}, &errors);
    Arena arena(Arena::Backing::kMemory, 1 << 20);
    ParameterSet parameters(&arena, false);
    const Model model(layers, 16, &parameters);
    parameters.Initialise(1);
    const int32_t prompt[] = {1};
    const auto generated = Generate(model, Device::kCpu, prompt, 2, Sampling(), DType::kF32,
                                    [](int32_t) { return true; });
    return std::string(generated.status().message());
  };
  const std::string at = "m.yaml:7:5: layers[0].recurrent.layers[0].quirky: cannot generate: ";
  EXPECT_EQ(refused("{says: last_in_training}"), "");
  EXPECT_EQ(refused("{says: last}"),
            at + "a token's result depends on later ones, since it is a test");
  EXPECT_EQ(refused("{says: forgets}"),
            at + "it has no state to continue from, since it is a test");
}

TEST(BlockTraits, AStackHasWhatAnyOfItsLayersHas) {
  StackConfig stack = With("{says: fours}", true);
  for (const char* more : {"{says: short}", "{says: first_row}", "{says: last_in_training}"})
    stack.list.push_back(With(more, false).list[0]);
  ErrorList errors;
  Place(&stack, {.D = 8}, &errors);
  const Traits t = TraitsOf(stack);
  EXPECT_EQ(t.multiple_of, 4);
  EXPECT_EQ(t.max_tokens, 70);
  EXPECT_TRUE(t.mixes_rows);
  EXPECT_EQ(t.causal, Causal::kInInference);
  EXPECT_TRUE(t.packs && t.decodes);
  EXPECT_STREQ(t.why, "it is a test");
  EXPECT_EQ(CheckSequences(stack, 68, true), absl::OkStatus());
  EXPECT_EQ(CheckSequences(stack, 72, false).message(),
            "this model runs on sequences of at most 70 tokens, not of 72, since it is a test");
  EXPECT_EQ(
      CheckSequences(stack, 66, false).message(),
      "this model runs on sequences of a multiple of 4 tokens, not of 66, since it is a test");
}

}  // namespace
}  // namespace tessera::testing
