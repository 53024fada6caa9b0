#include "arch/tuning.h"

#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "arch/cost.h"
#include "arch/model.h"
#include "train/run_config.h"

// What of a model is trained: patterns, adapters beside weights, adapters of layers that share.

namespace tessera {
namespace {

TEST(Fits, FromTheBeginningOfAPart) {
  const auto fits = [](const char* pattern, const char* name) { return Fits(pattern, name); };
  EXPECT_TRUE(fits("attention.q", "layers[0].attention.q"));
  EXPECT_TRUE(fits("q", "layers[0].attention.q"));
  EXPECT_TRUE(fits("layers[0].attention.q", "layers[0].attention.q"));
  EXPECT_TRUE(fits("attention.*", "layers[0].attention.q"));
  EXPECT_TRUE(fits("*", "model.head"));
  EXPECT_TRUE(fits("layers[*].mlp.*n", "layers[12].mlp.in"));
  EXPECT_TRUE(fits("x|mlp.*", "layers[0].mlp.in"));
  EXPECT_TRUE(fits("layers*|!router", "layers[0].moe.up"));
  EXPECT_FALSE(fits("layers*|!router", "layers[0].moe.router"));
  EXPECT_FALSE(fits("!router|layers*", "layers[0].moe.router")) << "in any order";
  EXPECT_FALSE(fits("ttention.q", "layers[0].attention.q"));
  EXPECT_FALSE(fits("attention", "layers[0].attention.q")) << "to the end";
  EXPECT_FALSE(fits("layers[1]*", "layers[0].attention.q")) << "brackets are themselves";
  EXPECT_FALSE(fits("ab*ba", "aba")) << "no letter twice";
}

absl::StatusOr<RunConfig> Read(const std::string& model, const std::string& train = "") {
  return ParseRunConfig("model: {d_model: 16, " + model + "}\ntrain: {seq: 8" + train + "}\n", "m",
                        {});
}
std::string Mistake(const std::string& model, const std::string& train = "") {
  return std::string(Read(model, train).status().message());
}

// A model in memory at its first values, and passes over some tokens.
class Net {
 public:
  explicit Net(const std::string& text) {
    const auto config = Read(text);
    if (!config.ok()) ADD_FAILURE() << config.status();
    model_ = std::make_unique<Model>(config->model, 32, &parameters_);
    parameters_.Initialise(1);
  }
  ParameterSet& parameters() { return parameters_; }
  // The loss of a training pass, whose gradients are left with the parameters.
  float Pass() {
    Context ctx(Device::kCpu, &memory_);
    const Tensor tokens = ctx.New({2, 8}, DType::kI32), one = ctx.New({1}, DType::kF32);
    ctx.position = ctx.New({2, 8}, DType::kI32);
    for (int i = 0; i < 16; ++i) {
      tokens.data<int32_t>()[i] = i * 7 % 32;
      ctx.position.data<int32_t>()[i] = i % 8;
    }
    one.data<float>()[0] = 1;
    parameters_.ForgetGradients();
    return TrainPass(ctx, *model_, tokens, tokens, one).data<float>()[0];
  }
  double GradientSize(const Parameter& p) {
    double sum = 0;
    if (p.var.grad() != nullptr && p.var.grad()->started)
      for (int64_t i = 0; i < p.shape.elements(); ++i)
        sum += std::abs(static_cast<double>(p.var.grad()->grad.data<float>()[i]));
    return sum;
  }

 private:
  Arena arena_{Arena::Backing::kMemory, 1 << 24}, memory_{Arena::Backing::kMemory, 1 << 26};
  ParameterSet parameters_{&arena_, true};
  std::unique_ptr<Model> model_;
};

constexpr char kLayers[] =
    "layers: [attention: {heads: 2}, moe: {experts: 4, d_ff: 8}, mamba2: {head_dim: 8, d_state: "
    "4}, gla: {heads: 2}, mlp: {d_ff: 12}]";

std::string Adapted(const std::string& lora, const std::string& layers = kLayers) {
  return "adapt: {lora: " + lora + "}, " + layers;
}

TEST(Adapters, StandBesideTheWeightsThatTheyMatch) {
  Net net(Adapted("{rank: 2, match: attention.q|moe.up|head}"));
  std::string trained;
  for (const Parameter& p : net.parameters().all())
    if (p.trainable) absl::StrAppend(&trained, p.name, " ", p.shape.ToString(), "\n");
  EXPECT_EQ(trained,
            "layers[0].attention.q.lora.A [2,16]\n"
            "layers[0].attention.q.lora.B [16,2]\n"
            "layers[1].moe.up.lora.A [4,2,16]\n"
            "layers[1].moe.up.lora.B [4,16,2]\n"
            "model.head.lora.A [2,16]\n"
            "model.head.lora.B [32,2]\n");
  EXPECT_EQ(net.parameters().Find("layers[1].moe.up.lora.A")->role, Role::kExpert);
  EXPECT_EQ(net.parameters().Find("model.head.lora.A")->role, Role::kMatrix);
}

// The adapted function is the base's at first, to the last bit, since B is zero; and any rank of 0
// is no adapter at all.
TEST(Adapters, StartAsTheBaseAndRankZeroIsTheBase) {
  Net base(kLayers), none(Adapted("{rank: 0}")), all(Adapted("{rank: 2, match: '*'}"));
  const float loss = base.Pass();
  EXPECT_EQ(none.Pass(), loss);
  EXPECT_EQ(all.Pass(), loss);
  EXPECT_EQ(none.parameters().all().size(), base.parameters().all().size());
  EXPECT_FALSE(none.parameters().trains()) << "the base is frozen all the same";
  EXPECT_GT(all.parameters().all().size(), base.parameters().all().size());
}

// B first: of A, whose product with a zero it is, there is no gradient yet. Nothing else has one.
TEST(Adapters, AloneHaveGradients) {
  for (const char* more : {"", ", recompute: true"}) {
    Net net(Adapted("{rank: 1, match: '*'}", absl::StrCat("layers: [{attention: {heads: 2}", more,
                                                          "}, {moe: {experts: 4, d_ff: 8}", more,
                                                          "}, {gla: {heads: 2}", more, "}]")));
    const auto fill = [](const Parameter& p, float v) {
      for (int64_t i = 0; i < p.shape.elements(); ++i) p.var.data<float>()[i] += v;
    };
    for (const bool moved : {false, true}) {
      net.Pass();
      for (const Parameter& p : net.parameters().all()) {
        EXPECT_EQ(p.var.grad() != nullptr, p.adapter) << p.name;
        if (!p.adapter) continue;
        if (p.name.ends_with("B") || moved)
          EXPECT_GT(net.GradientSize(p), 0) << p.name << more;
        else
          EXPECT_EQ(net.GradientSize(p), 0) << p.name << more;
      }
      for (const Parameter& p : net.parameters().all())
        if (p.name.ends_with("B")) fill(p, 0.1f);
    }
  }
}

TEST(Adapters, PrintAndReadBack) {
  const auto config = Read(Adapted("{rank: 2, alpha: 3, match: 'q|k'}"), ", freeze: ['*norm']");
  ASSERT_TRUE(config.ok()) << config.status();
  const std::string printed = PrintRunConfig(*config);
  EXPECT_NE(printed.find("lora: {rank: 2, alpha: 3, match: \"q|k\"}"), std::string::npos)
      << printed;
  const auto again = ParseRunConfig(printed, "again", {});
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(PrintRunConfig(*again), printed);
  EXPECT_EQ(again->model.tuning.freeze, std::vector<std::string>{"*norm"});
}

TEST(Adapters, CostWhatTheyAre) {
  const auto cost = [](const std::string& model) {
    const auto config = Read(model);
    EXPECT_TRUE(config.ok()) << config.status();
    return MeasureCost(config->model, 32, 2, 8, DType::kF32);
  };
  const std::string attention = "layers: [attention: {heads: 2}]",
                    moe = "layers: [moe: {experts: 4, top_k: 2, d_ff: 8}]";
  const ModelCost base = cost(attention), adapted = cost(Adapted("{rank: 3}", attention));
  // Four projections of 16 x 16: A and B, two products of each a token, and the sum.
  EXPECT_EQ(adapted.parameters - base.parameters, 4 * 3 * (16 + 16));
  EXPECT_EQ(adapted.trained_parameters, 4 * 3 * (16 + 16));
  EXPECT_EQ(base.trained_parameters, base.parameters);
  EXPECT_EQ(adapted.layers[1].parameters - base.layers[1].parameters, 4 * 3 * (16 + 16));
  const double products = 4 * 2 * 3 * (16 + 16);
  EXPECT_GE(adapted.forward_flops - base.forward_flops, products);
  EXPECT_LE(adapted.forward_flops - base.forward_flops, products + 4 * 2 * 16);
  EXPECT_LT(adapted.training_flops, base.training_flops) << "frozen weights have no gradient";
  const ModelCost experts = cost(moe), with = cost(Adapted("{rank: 2}", moe));
  // Each expert's up, 16 x 16, and down, 16 x 8; a token uses half of them.
  EXPECT_EQ(with.parameters - experts.parameters, 4 * 2 * (16 + 16 + 16 + 8));
  EXPECT_EQ(with.active_parameters - experts.active_parameters, 2 * 2 * (16 + 16 + 16 + 8));
}

TEST(Adapters, MistakesAreTold) {
  const auto of = [](const std::string& lora) { return Mistake(Adapted(lora)); };
  EXPECT_EQ(
      of("{match: atention.q}"),
      "m.yaml:1:44: adapt.lora.match: 'atention.q' fits no projection; did you mean "
      "'attention.q'? (projections: attention.k, attention.out, attention.q, attention.v, "
      "gla.gate, gla.in_proj, gla.out_proj, mamba2.in_proj, mamba2.out_proj, mlp.in, mlp.out, "
      "model.head, moe.down, moe.router, moe.up)");
  EXPECT_EQ(of("{rank: 5, match: 'moe.*'}"),
            "m.yaml:1:43: adapt.lora.rank: 5 is more than layers[1].moe.router, 4 x 16, allows; "
            "take at most 4, or leave it out: match: \"moe.*|!moe.router\"");
  EXPECT_EQ(of("{rank: -1}"), "m.yaml:1:43: rank: expected an integer in [0, 16777216], got '-1'");
  EXPECT_EQ(of("{rank: 17, match: 'moe.*|!moe.router|!down'}"),
            "m.yaml:1:43: adapt.lora.rank: 17 is more than layers[1].moe.up, 16 x 16, allows; take "
            "at most 16, or leave it out: match: \"moe.*|!moe.router|!down|!moe.up\"");
}

TEST(Freeze, KeepsWhatItsPatternsFit) {
  const auto frozen = [](const std::string& patterns) {
    const auto config = Read("layers: [mlp]", ", freeze: " + patterns);
    EXPECT_TRUE(config.ok()) << config.status();
    Arena arena(Arena::Backing::kMeta, 0);
    ParameterSet parameters(&arena, true);
    const Model model(config->model, 32, &parameters);
    std::vector<std::string> names;
    for (const Parameter& p : parameters.all())
      if (!p.trainable) names.push_back(p.name);
    return absl::StrJoin(names, " ");
  };
  EXPECT_EQ(frozen("[]"), "");
  EXPECT_EQ(frozen("[embedding, mlp.in]"), "model.embedding layers[0].mlp.in");
  EXPECT_EQ(frozen("['*|!head|!*norm']"), "model.embedding layers[0].mlp.in layers[0].mlp.out");
  EXPECT_EQ(Mistake("layers: [mlp]", ", freeze: [embedding, mlp.inn]"),
            "m.yaml:2:37: freeze: 'mlp.inn' fits no parameter; did you mean 'mlp.in'? (parameters: "
            "mlp.in, mlp.out, mlp.residual.norm, model.embedding, model.head, model.last_norm)");
}

// --- Layers that share their weights, with adapters of their own (Zamba2) ---

constexpr char kShared[] =
    "layers: [{attention: {heads: 2}, share: a, lora: {rank: 1, match: q}}, {attention: {heads: "
    "2}, share: a}, {attention: {heads: 2}, share: a, lora: {rank: 2, match: q|v}}]";

std::string Names(const std::string& model) {
  const auto config = Read(model);
  EXPECT_TRUE(config.ok()) << config.status();
  Arena arena(Arena::Backing::kMeta, 0);
  ParameterSet parameters(&arena, true);
  const Model net(config->model, 32, &parameters);
  std::string names;
  for (const Parameter& p : parameters.all())
    if (p.name.starts_with("layers")) absl::StrAppend(&names, p.name, "\n");
  return names;
}

TEST(SharedLayers, HaveWeightsOnceAndAdaptersEach) {
  EXPECT_EQ(Names(kShared),
            "layers[0].attention.residual.norm\n"
            "layers[0].attention.q\n"
            "layers[0].attention.q.own.A\n"
            "layers[0].attention.q.own.B\n"
            "layers[0].attention.out\n"
            "layers[0].attention.k\n"
            "layers[0].attention.v\n"
            "layers[2].attention.q.own.A\n"
            "layers[2].attention.q.own.B\n"
            "layers[2].attention.v.own.A\n"
            "layers[2].attention.v.own.B\n");
  Net net(kShared);
  for (const Parameter& p : net.parameters().all())
    if (p.name.ends_with(".B"))
      for (int64_t i = 0; i < p.shape.elements(); ++i) p.var.data<float>()[i] = 0.1f;
  const float loss = net.Pass();
  for (const Parameter& p : net.parameters().all())
    EXPECT_GT(net.GradientSize(p), 0) << p.name << " is trained, with the base";
  // The adapters of one use change it alone: with those of the last at zero the loss is another.
  for (const char* name : {"layers[0].attention.q.own.B", "layers[2].attention.v.own.B"}) {
    const Parameter& p = *net.parameters().Find(name);
    const std::vector<float> before(p.var.data<float>(), p.var.data<float>() + p.shape.elements());
    std::fill_n(p.var.data<float>(), p.shape.elements(), 0.0f);
    EXPECT_NE(net.Pass(), loss) << name;
    std::ranges::copy(before, p.var.data<float>());
    EXPECT_EQ(net.Pass(), loss) << name;
  }
}

// Layers inside of one that shares are its lender's, and so are their adapters; those of the layer
// itself are beside all projections in it.
TEST(SharedLayers, HoldLayersThatShare) {
  const std::string inner =
      "{recurrent: {steps: 1, layers: [{mlp: {d_ff: 8}, share: m, lora: {rank: 1}}, {mlp: {d_ff: "
      "8}, share: m}]}, share: r";
  const std::string once = Names("layers: [" + inner + "}]");
  EXPECT_EQ(Names("layers: [" + inner + "}, " + inner + "}]"), once);
  const std::string twice = Names("layers: [" + inner + "}, " + inner + ", lora: {rank: 2}}]");
  EXPECT_EQ(twice, once +
                       "layers[1].recurrent.layers[0].mlp.in.own.A\n"
                       "layers[1].recurrent.layers[0].mlp.in.own.B\n"
                       "layers[1].recurrent.layers[0].mlp.out.own.A\n"
                       "layers[1].recurrent.layers[0].mlp.out.own.B\n");
}

// Adapters of the model stand beside a shared weight once, and with them the layers' own are base.
TEST(SharedLayers, CanBeAdapted) {
  const std::string names = Names("adapt: {lora: {rank: 1, match: q}}, " + std::string(kShared));
  EXPECT_NE(names.find("layers[0].attention.q.lora.A\n"), std::string::npos) << names;
  EXPECT_EQ(names.find("layers[2].attention.q.lora.A\n"), std::string::npos) << names;
  Net net("adapt: {lora: {rank: 1, match: q}}, " + std::string(kShared));
  for (const Parameter& p : net.parameters().all())
    EXPECT_EQ(p.trainable, p.name.find(".lora.") != std::string::npos) << p.name;
}

TEST(SharedLayers, MistakesAreTold) {
  EXPECT_EQ(Mistake("layers: [{mlp: {}, lora: {rank: 2}}]"),
            "m.yaml:1:41: lora has no effect here: it needs `share: NAME`, weights that other "
            "layers use; take it away");
  EXPECT_EQ(Mistake("layers: [{repeat: 2, layers: [{mlp: {d_ff: 8}, share: a, lora: {match: "
                    "mlp.im}}]}]"),
            "m.yaml:1:53: lora: match: 'mlp.im' fits no projection; did you mean 'mlp.in'? "
            "(projections: mlp.in, mlp.out)");
  EXPECT_EQ(Mistake("layers: [{mlp: {d_ff: 8}, share: a, lora: {rank: 9}}]"),
            "m.yaml:1:32: lora: rank: 9 is more than layers[0].mlp.out, 16 x 8, allows; take at "
            "most 8, or leave it out: match: \"layers*|!router|!shared.gate|!mlp.out\"");
}

// One use after another is one layer used twice: costs are of each, parameters where they are made.
TEST(SharedLayers, CostTheirAdapters) {
  const auto config = Read(kShared);
  ASSERT_TRUE(config.ok()) << config.status();
  const ModelCost cost = MeasureCost(config->model, 32, 2, 8, DType::kF32);
  EXPECT_EQ(cost.layers[1].parameters, 16 + 4 * 256 + 32);
  EXPECT_EQ(cost.layers[2].parameters, 0);
  EXPECT_EQ(cost.layers[2].active_parameters, 0);
  EXPECT_EQ(cost.layers[3].parameters, 2 * 2 * 32);
  EXPECT_GT(cost.layers[3].forward_flops, cost.layers[2].forward_flops + 2 * 2 * 2 * 32 - 1);
}

}  // namespace
}  // namespace tessera
