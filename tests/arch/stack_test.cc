#include "arch/stack.h"

#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "arch/cost.h"
#include "arch/draw.h"
#include "arch/placement.h"
#include "arch/registry.h"
#include "core/status.h"
#include "train/run_config.h"

// Layers inside of layers: their names, what they are told, what they remember, what they cost.

namespace tessera {
namespace {

absl::StatusOr<RunConfig> Read(const std::string& layers,
                               const std::vector<std::string>& overrides = {}) {
  return ParseRunConfig("model: {d_model: 16, layers: " + layers + "}\ntrain: {seq: 64}\n", "m",
                        overrides);
}

std::string Mistakes(const std::string& layers) {
  return std::string(Read(layers).status().message());
}

std::vector<std::string> ParameterNames(const ModelConfig& config) {
  Arena arena(Arena::Backing::kMeta, 0);
  ParameterSet parameters(&arena, true);
  const Model model(config, 32, &parameters);
  std::vector<std::string> names;
  for (const Parameter& p : parameters.all()) names.push_back(p.name);
  return names;
}

TEST(Stack, ParametersOfNestedLayersAreNamedByTheirPath) {
  const auto config = Read(
      "[gla, {recurrent: {layers: [{parallel: {branches: [mlp, {recurrent: {steps: 3, layers: "
      "[mlp]}}]}}]}, norm: none}]");
  ASSERT_TRUE(config.ok()) << config.status();
  std::string names;
  for (const std::string& name : ParameterNames(config->model))
    if (name.starts_with("layers[1]")) absl::StrAppend(&names, name, "\n");
  EXPECT_EQ(names,
            "layers[1].recurrent.layers[0].parallel.residual.norm\n"
            "layers[1].recurrent.layers[0].parallel[0].mlp.in\n"
            "layers[1].recurrent.layers[0].parallel[0].mlp.out\n"
            "layers[1].recurrent.layers[0].parallel[1].recurrent.layers[0].mlp.residual.norm\n"
            "layers[1].recurrent.layers[0].parallel[1].recurrent.layers[0].mlp.in\n"
            "layers[1].recurrent.layers[0].parallel[1].recurrent.layers[0].mlp.out\n");
}

TEST(Stack, NestedConfigsPrintAndReadBack) {
  const auto config = Read(
      "[{repeat: 2, layers: [{recurrent: {steps: 3, layers: [{repeat: 2, layers: [mlp]}, {gla: "
      "{heads: 2}, name: a}]}, residual: false}]}]");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->model.layers.Depth(), 2 * (1 + 3 * 3));
  EXPECT_EQ(config->model.layers.list[0].branches[0].shape.max_tokens, 64) << "train.seq";
  const std::string printed = PrintRunConfig(*config);
  const auto again = ParseRunConfig(printed, "again", {});
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(PrintRunConfig(*again), printed);
  EXPECT_EQ(ParameterNames(again->model), ParameterNames(config->model));
}

TEST(Stack, OverridesReachBelowNestedLists) {
  const std::string layers = "[mlp, {recurrent: {layers: [mlp, gla]}}]";
  const auto changed = Read(layers, {"model.layers[1].recurrent.layers[1].gla.heads=8"});
  ASSERT_TRUE(changed.ok()) << changed.status();
  EXPECT_NE(PrintRunConfig(*changed).find("heads: 8"), std::string::npos);
  EXPECT_EQ(Read(layers, {"model.layers[1].recurrent.layers[1].gla.heads=5"}).status().message(),
            "m.yaml:1:63: gla: heads = 5 does not divide the width 8 (expand_k = 0.5 times d_model "
            "= 16)");
  EXPECT_EQ(Read(layers, {"model.layers[1].recurrent.layers[2].gla.heads=8"}).status().message(),
            "command line: model.layers[1].recurrent.layers[2].gla.heads=8: there is no [2]: "
            "model.layers[1].recurrent.layers is a list, [0] to [1]");
}

TEST(Stack, MistakesInNestedListsAreToldWithTheirPlace) {
  EXPECT_EQ(Mistakes("[{recurrent: {layers: []}}]"),
            "m.yaml:1:52: layers: expected a list of layers such as [attention, mlp], got an empty "
            "one");
  EXPECT_EQ(Mistakes("[recurrent]"),
            "m.yaml:1:31: recurrent: expected the key 'layers': a list of layers such as "
            "[attention, mlp]");
  EXPECT_PRED_FORMAT2(
      ::testing::IsSubstring,
      "m.yaml:1:53: unknown block 'mpl' in a layer; did you mean 'mlp'? (known: attention, ",
      Mistakes("[{recurrent: {layers: [mpl]}}]"));
  EXPECT_EQ(Mistakes("[{repeat: 2, layers: [{recurrent: {layers: [{gla: {heads: 5}}]}}]}]"),
            "m.yaml:1:75: gla: heads = 5 does not divide the width 8 (expand_k = 0.5 times d_model "
            "= 16)")
      << "once, though it is in two layers";
  EXPECT_EQ(Mistakes("[{recurrent: {steps: 1000, layers: [{recurrent: {steps: 1000, layers: "
                     "[mlp]}}]}}]"),
            "m.yaml:1:30: layers: more than 10000 layers, with those inside of layers, and one "
            "that runs n times counted n times");
  EXPECT_EQ(Mistakes("[{recurrent: {steps: 1, inject: true, layers: [mlp]}}]"),
            "m.yaml:1:54: inject has no effect here: it needs `steps: 2` or more; take it away");
}

TEST(Stack, NamesAreSeenFromInsideAndNotFromOutside) {
  EXPECT_EQ(Mistakes("[{mlp: {}, name: a}, {recurrent: {layers: [{mlp: {}, input: a}]}}]"), "");
  EXPECT_EQ(Mistakes("[{recurrent: {layers: [{mlp: {}, name: a}]}}, {mlp: {}, input: a}]"),
            "m.yaml:1:77: layers[1].mlp: input: no earlier layer has the name 'a' that can be seen "
            "from here; layers[0].recurrent.layers[0].mlp, which has it, is in another list of "
            "layers");
  EXPECT_EQ(Mistakes("[{recurrent: {layers: [{mlp: {}, input: a}]}}, {mlp: {}, name: a}]"),
            "m.yaml:1:54: layers[0].recurrent.layers[0].mlp: input: no earlier layer has the name "
            "'a'; layers[1].mlp, which has it, is not before this one");
  EXPECT_EQ(Mistakes("[{recurrent: {layers: [{mlp: {}, input: a}]}, name: a}]"),
            "m.yaml:1:54: layers[0].recurrent.layers[0].mlp: input: no earlier layer has the name "
            "'a'; layers[0].recurrent, which has it, holds this one");
  EXPECT_EQ(Mistakes("[{recurrent: {layers: [{mlp: {}, input: b}]}}]"),
            "m.yaml:1:54: layers[0].recurrent.layers[0].mlp: input: no earlier layer has the name "
            "'b'");
}

// A name stands for the nearest layer before: in a copy of a `repeat` for the copy's own, or for
// that of the copy before where the name is given only after.
TEST(Stack, ANameInARepeatIsTheNearest) {
  const auto config = Read(
      "[{mlp: {}, name: a}, {repeat: 2, layers: [{recurrent: {layers: [{mlp: {}, input: a, name: "
      "b}, {mlp: {}, input: b}]}, name: a}]}]");
  ASSERT_TRUE(config.ok()) << config.status();
  const auto inside = [&](size_t layer, size_t i) {
    BlockType::Config& held = *config->model.layers.list[layer].branches[0].config;
    return held.Layers()[0].layers->list[i].input_address;
  };
  EXPECT_EQ(inside(1, 0), "layers[0].mlp:output");
  EXPECT_EQ(inside(1, 1), "layers[1].recurrent.layers[0].mlp:output");
  EXPECT_EQ(inside(2, 0), "layers[1].recurrent:output");
  EXPECT_EQ(inside(2, 1), "layers[2].recurrent.layers[0].mlp:output");
  EXPECT_EQ(Mistakes("[{gla: {}, name: a}, {repeat: 2, layers: [{recurrent: {layers: [{attention: "
                     "{kv_from: a}}]}, name: a}]}]"),
            "m.yaml:1:95: layers[1].recurrent.layers[0].attention: kv_from: the layer 'a', "
            "layers[0].gla, provides no kv\nm.yaml:1:95: layers[2].recurrent.layers[0].attention: "
            "kv_from: the layer 'a', layers[1].recurrent, provides no kv");
}

TEST(Stack, SharedLayersWithLayersInsideReadFromTheSamePlaces) {
  const std::string shared = "{recurrent: {layers: [{mlp: {}, input: a}]}, share: s}";
  EXPECT_EQ(Mistakes("[{mlp: {}, name: a}, " + shared + ", " + shared + "]"), "");
  EXPECT_EQ(Mistakes("[{mlp: {}, name: a}, " + shared + ", {mlp: {}, name: a}, " + shared + "]"),
            "m.yaml:1:128: layers[3].recurrent: share: s is the name of another kind of layer, "
            "layers[1].recurrent");
}

// --- What blocks are told, by a block that keeps it ---

struct ProbeConfig {
  StackConfig layers;
  bool other_length = false;
  void Fields(FieldList& f) { f.Add("layers", layers, ""); }
  absl::Status Check(const BlockShape&) const { return absl::OkStatus(); }
  std::vector<HeldLayers> Layers() {
    if (layers.list.empty()) return {};
    const auto halve = [](BlockShape* shape) { shape->max_tokens /= 2; };
    if (other_length) return {{&layers, "inner", 1, halve}};
    return {{&layers, "inner", 3}};
  }
};

std::vector<BlockShape> told;

// y = S(x), its layers' stack, over every token; or, of another length, over the second half alone,
// which is then the result.
class Probe final : public Block {
 public:
  Probe(const ProbeConfig& c, const BlockShape& in, Parameters& p) {
    told.push_back(in);
    if (!c.layers.list.empty()) stack_.emplace(c.layers, in, p);
  }
  Var Forward(Context& ctx, const Var& x, State* state) const override {
    if (state != nullptr) state->At("seen") = Var(ctx.New({x.dim(0), 1}, DType::kF32));
    if (!stack_) return x;
    const int64_t T = x.dim(1), D = x.dim(2);
    const Var half(
        x.value().Reshape({1, T * D}).Slice(T / 2 * D, T / 2 * D).Reshape({1, T / 2, D}));
    stack_->Forward(ctx, half, state == nullptr ? nullptr : &state->Part(0));
    return x;
  }
  StateSize States(DType) const override { return {.fixed_bytes = 4}; }
  std::vector<HeldStack> Stacks() const override {
    return stack_ ? std::vector<HeldStack>{{&*stack_}} : std::vector<HeldStack>();
  }

 private:
  std::optional<Stack> stack_;
};
constexpr BlockType kProbe = DefineBlock<Probe, ProbeConfig>("probe", "", "");
// The same with layers of another length.
struct HalvesConfig : ProbeConfig {
  HalvesConfig() { other_length = true; }
};
constexpr BlockType kHalves = DefineBlock<Probe, HalvesConfig>("halves", "", "");

LayerConfig LayerOf(const BlockType& type, const std::vector<LayerConfig>& inside = {}) {
  BranchConfig b{.type = &type, .config = type.make_config()};
  FieldList fields;
  if (!inside.empty()) {
    // Layers() lists what is there, so the first is read.
    b.config->Fields(fields);
    ErrorList errors;
    const auto one = ParseYaml("[mlp]", "one");
    fields.all()[0].read(*one, &errors);
    b.config->Layers()[0].layers->list = inside;
  }
  return {.branches = {b}};
}

ModelConfig ModelOf(std::vector<LayerConfig> layers) {
  ModelConfig config{.d_model = 8, .norm = NormKind::kLayer, .norm_eps = 0.5};
  config.layers.list = std::move(layers);
  ErrorList errors;
  PlaceLayers(&config, {.max_tokens = 128}, &errors);
  EXPECT_TRUE(errors.empty()) << errors.ToStatus();
  return config;
}

TEST(Stack, BlocksAreToldTheirPlace) {
  told.clear();
  const ModelConfig config = ModelOf(
      {LayerOf(*FindBlock("mlp")), LayerOf(kProbe, {LayerOf(kProbe), LayerOf(*FindBlock("mlp"))}),
       LayerOf(kProbe), LayerOf(kHalves, {LayerOf(kProbe)})});
  ParameterNames(config);
  // Each made after those inside of it are placed; the inner stack runs three times.
  std::string text;
  for (const BlockShape& s : told) {
    EXPECT_EQ(s.D, 8);
    EXPECT_EQ(s.layers, 1 + (1 + 3 * 2) + 1 + 2);
    EXPECT_EQ(s.vocab, 32);
    EXPECT_EQ(s.norm, NormKind::kLayer);
    EXPECT_EQ(s.norm_eps, 0.5);
    absl::StrAppend(&text, s.index, " ", s.kind_index, " ", s.max_tokens, "\n");
  }
  EXPECT_EQ(text, "1 0 128\n2 1 128\n8 2 128\n9 0 128\n10 3 64\n");
}

TEST(Stack, StatesAreATree) {
  const ModelConfig config = ModelOf({LayerOf(kProbe), LayerOf(kHalves, {LayerOf(kProbe)})});
  Arena parameters_arena(Arena::Backing::kMeta, 0), arena(Arena::Backing::kMeta, 0);
  ParameterSet parameters(&parameters_arena, false);
  const Model model(config, 32, &parameters);
  ModelState state = model.NewState(1, 100);
  Context ctx(Device::kMeta, &arena);
  const auto read = [&](int64_t T) {
    ctx.position = ctx.New({1, T}, DType::kI32);
    model.Hidden(ctx, ctx.New({1, T}, DType::kI32), &state);
  };
  read(10);
  read(6);
  State &whole = state.layers.Part(1), &half = whole.Part(0), &inner = half.Part(0);
  EXPECT_EQ(state.tokens(), 16);
  EXPECT_EQ(whole.tokens, 16);
  EXPECT_EQ(half.tokens, 8);
  EXPECT_EQ(inner.tokens, 8);
  EXPECT_EQ(inner.capacity, 100);
  EXPECT_EQ(state.bytes(), 3 * 4);
  EXPECT_EQ(model.States(DType::kF32).After(16), 3 * 4);
  EXPECT_EQ(state.layers.Values().size(), 3u);
  State copy = state.layers.Outline();
  EXPECT_EQ(copy.bytes(), 0);
  EXPECT_EQ(copy.Part(1).Part(0).Part(0).tokens, 8);
  copy.SetValues(state.layers.Values());
  EXPECT_EQ(copy.bytes(), 3 * 4);
  state.MoveTo(48);
  EXPECT_EQ(whole.tokens, 48);
  EXPECT_EQ(inner.tokens, 24);
  EXPECT_EQ(state.NextPositions(1), std::vector<int32_t>{48});
}

TEST(Stack, LayersOfAnotherLengthSeeNoNamesOutside) {
  LayerConfig source = LayerOf(*FindBlock("mlp")), reader = LayerOf(*FindBlock("mlp"));
  source.name = reader.input = "a";
  for (const bool same : {true, false}) {
    ModelConfig config{.d_model = 8};
    config.layers.list = {source, LayerOf(same ? kProbe : kHalves, {reader})};
    ErrorList errors;
    PlaceLayers(&config, {}, &errors);
    EXPECT_EQ(errors.ToStatus().message(),
              same ? ""
                   : ": layers[1].halves.inner[0].mlp: input: no earlier layer has the name 'a' "
                     "that can be seen from here; layers[0].mlp, which has it, is in another list "
                     "of layers");
  }
}

// --- What they cost, and how they are drawn ---

TEST(Stack, CostsOfNestedLayersAreTheirOwn) {
  const auto config =
      Read("[mlp, {recurrent: {steps: 3, layers: [mlp, {attention: {heads: 2}}]}}]");
  ASSERT_TRUE(config.ok()) << config.status();
  const ModelCost cost = MeasureCost(config->model, 32, 2, 64, DType::kF32);
  std::map<std::string, LayerCost> rows;
  LayerCost sum;
  for (const LayerCost& l : cost.layers) {
    rows[l.path] = l;
    sum.parameters += l.parameters;
    sum.forward_flops += l.forward_flops;
    sum.training_flops += l.training_flops;
  }
  ASSERT_EQ(cost.layers.size(), 6u) << "the model, four layers and the head";
  const LayerCost &alone = rows["layers[0].mlp"],
                  &inside = rows["layers[1].recurrent.layers[0].mlp"];
  EXPECT_EQ(inside.parameters, alone.parameters);
  EXPECT_EQ(inside.forward_flops, 3 * alone.forward_flops);
  EXPECT_EQ(inside.training_flops, 3 * alone.training_flops);
  EXPECT_GE(inside.activation_bytes, 3 * alone.activation_bytes);
  EXPECT_EQ(rows["layers[1].recurrent.layers[1].attention"].kv_bytes_per_token, 3 * 2 * 16 * 4);
  EXPECT_EQ(cost.kv_bytes_per_token, 3 * 2 * 16 * 4);
  EXPECT_EQ(sum.parameters, cost.parameters);
  EXPECT_NEAR(sum.forward_flops, cost.forward_flops, 1e-6 * cost.forward_flops);
  EXPECT_NEAR(sum.training_flops, cost.training_flops, 1e-6 * cost.training_flops);
}

TEST(Stack, LayersInsideAreDrawnBelowWhatHoldsThem) {
  const auto config = Read(
      "[{recurrent: {steps: 4, layers: [{attention: {heads: 2}}, {repeat: 2, layers: [mlp]}]}, "
      "norm: none, residual: false}, {parallel: {branches: [{recurrent: {layers: [gla]}}, mlp]}}]");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(DrawGraph(config->model, 256), R"(tokens
│  embedding 256 x 16
├─ recurrent      f(x)                   steps: 4
│    ├─ attention      x + f(norm x)          heads: 2
│    │ ┌ 2 times
│    │ │ ├─ mlp            x + f(norm x)
│    │ └
├─ parallel       x + sum f(norm x)
│    ├ recurrent
│    │    ├─ gla            x + f(norm x)
│    └ mlp
│  rms norm
logits   head 256 x 16
)");
}

}  // namespace
}  // namespace tessera
