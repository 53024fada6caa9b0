#include "arch/model.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "arch/cost.h"
#include "core/rng.h"
#include "core/status.h"

// The layer graph: each way to put blocks together, on small models. What one block does is the
// block contract's matter.

namespace tessera {
namespace {

constexpr int64_t kVocab = 32, kB = 2, kT = 12;

absl::StatusOr<ModelConfig> Read(const std::string& text) {
  TESSERA_ASSIGN_OR_RETURN(const ConfigNode node, ParseYaml(text, "m"));
  ErrorList errors;
  ModelConfig config = ReadModelConfig(node, &errors);
  TESSERA_RETURN_IF_ERROR(errors.ToStatus());
  return config;
}

class Net {
 public:
  explicit Net(const std::string& layers, const std::string& more = "")
      : arena_(Arena::Backing::kMemory, 1 << 24),
        memory_(Arena::Backing::kMemory, 1 << 26),
        parameters_(&arena_, true) {
    const auto config = Read("{d_model: 16, " + more + "layers: " + layers + "}");
    if (!config.ok()) ADD_FAILURE() << config.status();
    model_ = std::make_unique<Model>(*config, kVocab, &parameters_);
    parameters_.Initialise(1);
    // Larger than at the start of training, so that nothing hides behind a small value.
    for (const Parameter& p : parameters_.all())
      for (int64_t i = 0; i < p.var.shape().elements(); ++i)
        p.var.data<float>()[i] = 0.3f * static_cast<float>(Rng(7, p.name).Normal(i)) +
                                 (p.var.shape().rank() == 1 ? 1.0f : 0.0f);
  }

  ParameterSet& parameters() { return parameters_; }
  float* At(const std::string& name) {
    for (const Parameter& p : parameters_.all())
      if (p.name == name) return p.var.data<float>();
    ADD_FAILURE() << "no parameter " << name;
    return nullptr;
  }

  double Loss(bool gradients = false) {
    Context ctx(Device::kCpu, &memory_);
    Tensor tokens, targets;
    Fill(ctx, kT, &tokens, &targets);
    if (!gradients) return static_cast<double>(model_->Loss(ctx, tokens, targets).data<float>()[0]);
    parameters_.ForgetGradients();
    const Tensor one = ctx.New({1}, DType::kF32);
    one.data<float>()[0] = 1;
    return static_cast<double>(TrainPass(ctx, *model_, tokens, targets, one).data<float>()[0]);
  }

  // The gradients of a random function of the hidden output of kT tokens in chunks, through the
  // states, and what was counted on the way.
  std::map<std::string, std::vector<float>> ChunkGradients(const std::vector<int64_t>& chunks,
                                                           CostCounter* counter) {
    Context ctx(Device::kCpu, &memory_);
    ctx.counter = counter;
    ctx.SetRecording(true);
    parameters_.ForgetGradients();
    std::vector<std::pair<Var, Tensor>> seeds;
    {
      ModelState state = model_->NewState(kB, 0);
      int64_t at = 0;
      for (const int64_t T : chunks) {
        Tensor tokens = ctx.New({kB, T}, DType::kI32), seed = ctx.New({kB, T, 16}, DType::kF32);
        ctx.position = ctx.New({kB, T}, DType::kI32);
        std::ranges::copy(state.NextPositions(T), ctx.position.data<int32_t>());
        for (int64_t i = 0; i < kB * T; ++i) tokens.data<int32_t>()[i] = Token(i / T, at + i % T);
        for (int64_t i = 0; i < seed.elements(); ++i)
          seed.data<float>()[i] = static_cast<float>(Rng(9, "seed").Normal(at * 16 * kB + i));
        at += T;
        seeds.emplace_back(model_->Hidden(ctx, tokens, &state), seed);
      }
    }
    ctx.Backward(seeds);
    std::map<std::string, std::vector<float>> all;
    for (const Parameter& p : parameters_.all())
      if (const GradRef& g = p.var.grad(); g->started)
        all[p.name].assign(g->grad.data<float>(), g->grad.data<float>() + p.var.shape().elements());
    return all;
  }

  // The logits of the last of kT tokens: by one pass, or after chunks through the states.
  std::vector<float> Logits(const std::vector<int64_t>& chunks, int64_t capacity) {
    ModelState state = model_->NewState(kB, capacity);
    std::vector<float> logits;
    Context keep(Device::kCpu, &memory_);
    int64_t at = 0;
    for (const int64_t T : chunks) {
      Context ctx(Device::kCpu, &memory_);
      Tensor tokens = ctx.New({kB, T}, DType::kI32);
      ctx.position = ctx.New({kB, T}, DType::kI32);
      std::ranges::copy(state.NextPositions(T), ctx.position.data<int32_t>());
      for (int64_t b = 0; b < kB; ++b)
        for (int64_t t = 0; t < T; ++t) tokens.data<int32_t>()[b * T + t] = Token(b, at + t);
      at += T;
      const Var out = model_->LastLogits(ctx, model_->Hidden(ctx, tokens, &state));
      logits.assign(out.data<float>(), out.data<float>() + kB * kVocab);
    }
    return logits;
  }

 private:
  static int32_t Token(int64_t b, int64_t t) {
    return static_cast<int32_t>((b * 11 + t * t * 5 + t) % kVocab);
  }
  static void Fill(Context& ctx, int64_t T, Tensor* tokens, Tensor* targets) {
    *tokens = ctx.New({kB, T}, DType::kI32);
    *targets = ctx.New({kB, T}, DType::kI32);
    ctx.position = ctx.New({kB, T}, DType::kI32);
    for (int64_t b = 0; b < kB; ++b)
      for (int64_t t = 0; t < T; ++t) {
        tokens->data<int32_t>()[b * T + t] = Token(b, t);
        targets->data<int32_t>()[b * T + t] = Token(b, t + 1);
        ctx.position.data<int32_t>()[b * T + t] = static_cast<int32_t>(t);
      }
  }

  Arena arena_, memory_;
  ParameterSet parameters_;
  std::unique_ptr<Model> model_;
};

// Every way to join layers, each with what makes it differ from a plain stack.
const char* const kGraphs[] = {
    "[mlp, gla]",
    "[{mlp: {d_ff: 8}, norm: post}, {gla: {heads: 2}, norm: none, residual_scale: 0.5}]",
    "[{mlp: {d_ff: 8}, norm: sandwich, residual_scale: 0.7}, gla]",
    "[{parallel: {branches: [{attention: {heads: 2}}, {gla: {heads: 2}}], combine: sum}}]",
    "[{parallel: {branches: [{attention: {heads: 2}}, {mamba2: {head_dim: 8}}], combine: mean}, "
    "norm: post}]",
    "[{parallel: {branches: [{attention: {heads: 2}}, mlp], combine: concat}}]",
    "[{gla: {heads: 2}, share: a}, {mlp: {d_ff: 8}}, {gla: {heads: 2}, share: a}]",
    "[{mlp: {d_ff: 8}, name: early}, gla, {mlp: {d_ff: 8}, input: early}]",
    "[{attention: {heads: 2}, name: keys}, mlp, {attention: {heads: 2, kv_from: keys}}]",
    "[{attention: {heads: 4, kv_heads: 2, window: 5, qk_norm: true, bias: true}, name: keys}, "
    "{attention: {heads: 2, kv_heads: 2, head_dim: 4, window: 3, kv_from: keys}}]",
    "[{mlp: {d_ff: 8}, recompute: true}, {gla: {heads: 2}, recompute: true, norm: sandwich}]",
};

// Along the gradient itself, the loss rises as the gradient says.
TEST(Model, GradientsOfEveryGraphMatchFiniteDifferences) {
  for (const bool tied : {false, true})
    for (const char* graph : kGraphs) {
      SCOPED_TRACE(std::string(graph) + (tied ? " tied" : ""));
      Net net(graph, tied ? "tie_embeddings: true, norm: layer, " : "");
      net.Loss(true);
      double square = 0;
      std::vector<std::vector<float>> gradients;
      for (const Parameter& p : net.parameters().all()) {
        ASSERT_TRUE(p.var.grad()->started) << p.name;
        const float* g = p.var.grad()->grad.data<float>();
        gradients.emplace_back(g, g + p.var.shape().elements());
        double own = 0;
        for (const float v : gradients.back()) own += double(v) * double(v);
        EXPECT_GT(own, 0) << p.name << " moves nothing";
        square += own;
      }
      const double h = 1e-3 / std::sqrt(square);
      const auto moved = [&](double step) {
        for (size_t i = 0; i < gradients.size(); ++i)
          for (size_t j = 0; j < gradients[i].size(); ++j)
            net.parameters().all()[i].var.data<float>()[j] +=
                static_cast<float>(step) * gradients[i][j];
        return net.Loss();
      };
      const double above = moved(h), below = moved(-2 * h);
      EXPECT_NEAR((above - below) / (2 * h) / square, 1, 5e-3);
    }
}

TEST(Model, StatesOfEveryGraphContinueWhereTheChunkBeforeEnded) {
  const std::vector<int64_t> tokens(kT, 1);
  for (const char* graph : kGraphs) {
    SCOPED_TRACE(graph);
    Net net(graph);
    const std::vector<float> whole = net.Logits({kT}, 0);
    const std::vector<std::vector<float>> others = {net.Logits({5, 1, 4, 2}, 0),
                                                    net.Logits(tokens, 0), net.Logits(tokens, kT),
                                                    net.Logits({7, 1, 1, 1, 1, 1}, kT)};
    for (const std::vector<float>& other : others)
      for (size_t i = 0; i < whole.size(); ++i) ASSERT_NEAR(whole[i], other[i], 2e-4);
  }
}

// What a block remembers passes through a layer that is run again: the same gradients, and fewer
// bytes kept, with states as without.
TEST(Model, RecomputedLayersPassStatesOn) {
  for (const char* graph :
       {"gla: {heads: 2, conv: 3}", "mamba2: {head_dim: 8}", "attention: {heads: 2, window: 4}",
        "attention: {heads: 2}", "moe: {experts: 4, d_ff: 12}",
        "parallel: {branches: [{gla: {heads: 2}}, {attention: {heads: 2}}], combine: sum}"}) {
    SCOPED_TRACE(graph);
    const std::string layer = std::string("{") + graph;
    Net plain("[" + layer + "}, " + layer + "}]"),
        again("[" + layer + ", recompute: true}, " + layer + ", recompute: true}]");
    for (const std::vector<int64_t>& chunks : {std::vector<int64_t>{kT}, {5, 1, 4, 2}}) {
      CostCounter plain_cost, again_cost;
      const auto want = plain.ChunkGradients(chunks, &plain_cost);
      const auto got = again.ChunkGradients(chunks, &again_cost);
      ASSERT_EQ(got.size(), want.size());
      for (const auto& [name, g] : want)
        for (size_t i = 0; i < g.size(); ++i)
          ASSERT_NEAR(got.at(name)[i], g[i], 1e-4 * (1 + std::abs(g[i]))) << name << " " << i;
      EXPECT_EQ(want.size() + 1, plain.parameters().all().size()) << "all but the head's";
      EXPECT_EQ(plain_cost.Total().recompute.flops, 0);
      EXPECT_EQ(again_cost.Total().recompute.flops,
                again_cost.Total().forward.flops - again_cost.At("model")->forward.flops);
      const auto kept = [](CostCounter& c) {
        int64_t bytes = 0;
        for (const auto& [path, s] : c.scopes())
          if (path.starts_with("layers[0].") && path.find('.', 10) == std::string::npos)
            bytes += s.kept_bytes;
        return bytes;
      };
      EXPECT_LT(kept(again_cost), kept(plain_cost));
    }
  }
}

// A copy's layers would point into the config of the first.
static_assert(!std::is_copy_constructible_v<Model> && !std::is_move_constructible_v<Model>);

TEST(Model, SharedLayersHaveOneSetOfWeights) {
  Net shared("[{gla: {heads: 2}, share: a}, {gla: {heads: 2}, share: a}]"),
      apart("[{gla: {heads: 2}}, {gla: {heads: 2}}]"), one("[{gla: {heads: 2}}]");
  EXPECT_EQ(shared.parameters().all().size(), one.parameters().all().size());
  for (const Parameter& p : shared.parameters().all()) {
    const int64_t n = p.var.shape().elements();
    std::copy_n(p.var.data<float>(), n, apart.At(p.name));
    std::string twin = p.name;
    if (const size_t at = twin.find("layers[0]"); at != std::string::npos)
      std::copy_n(p.var.data<float>(), n, apart.At(twin.replace(at, 9, "layers[1]")));
  }
  EXPECT_EQ(shared.Loss(), apart.Loss());
}

TEST(Model, MeanIsTheSumScaledByTheBranches) {
  Net sum("[{parallel: {branches: [mlp, mlp], combine: sum}, residual_scale: 0.5}]"),
      mean("[{parallel: {branches: [mlp, mlp], combine: mean}}]"),
      other("[{parallel: {branches: [mlp, mlp], combine: sum}}]");
  EXPECT_NEAR(sum.Loss(), mean.Loss(), 1e-6);
  EXPECT_GT(std::abs(other.Loss() - mean.Loss()), 1e-4);
}

TEST(Model, EachNormPlaceIsAnotherModel) {
  std::vector<double> losses;
  for (const char* place : {"pre", "post", "sandwich", "none"})
    losses.push_back(Net(std::string("[{mlp: {}, norm: ") + place + "}, mlp]").Loss());
  for (size_t i = 0; i < losses.size(); ++i)
    for (size_t j = 0; j < i; ++j) EXPECT_GT(std::abs(losses[i] - losses[j]), 1e-4);
}

TEST(Model, ATiedHeadIsTheEmbedding) {
  Net tied("[mlp]", "tie_embeddings: true, "), apart("[mlp]");
  EXPECT_EQ(tied.parameters().all().size() + 1, apart.parameters().all().size());
  for (const Parameter& p : tied.parameters().all())
    std::copy_n(p.var.data<float>(), p.var.shape().elements(), apart.At(p.name));
  std::copy_n(tied.At("model.embedding"), kVocab * 16, apart.At("model.head"));
  EXPECT_EQ(tied.Loss(), apart.Loss());
}

TEST(Model, ReadersOfKeysRememberNothing) {
  const ModelConfig config = *Read(
      "{d_model: 16, layers: [{attention: {heads: 2}, name: keys}, {attention: {heads: 2, "
      "kv_from: keys}}]}");
  const ModelCost cost = MeasureCost(config, kVocab, 1, 8, DType::kF32);
  EXPECT_EQ(cost.kv_bytes_per_token, 2 * 16 * 4);
}

TEST(Model, MistakesInTheGraphAreTold) {
  const auto told = [](const std::string& layers) {
    return std::string(Read("{d_model: 16, layers: " + layers + "}").status().message());
  };
  const std::string source = "{attention: {heads: 2, window: 4}, name: a}", at = "m:1:23: ";
  EXPECT_EQ(told("[{attention: {kv_from: a}}]"),
            at + "layers[0].attention: no earlier layer has the name 'a'");
  EXPECT_EQ(told("[{gla: {}, name: a}, {attention: {kv_from: a}}]"),
            at + "layers[1].attention: the layer 'a' is a layer of another kind");
  EXPECT_EQ(told("[" + source + ", {attention: {heads: 4, window: 4, kv_from: a}}]"),
            at + "layers[1].attention: the layer 'a' has 2 key heads of 8, this one wants 4 of 4; "
                 "make kv_heads and head_dim equal");
  EXPECT_EQ(told("[" + source + ", {attention: {heads: 2, kv_from: a}}]"),
            at + "layers[1].attention: the layer 'a' remembers 4 keys; this one's window must not "
                 "be wider");
  EXPECT_EQ(told("[{attention: {heads: 2}, name: a, recompute: true}, {attention: {heads: 2, "
                 "kv_from: a}}]"),
            at + "layers[1].attention: the layer 'a' has recompute: true, so what it leaves cannot "
                 "be read");
  EXPECT_EQ(told("[{mlp: {}, name: a}, {mlp: {}, input: a, recompute: true}]"),
            at + "layers[1].mlp: recompute: a layer that reads another keeps its activations; "
                 "leave it out");
  EXPECT_EQ(told("[{mlp: {}, share: s}, {gla: {}, share: s}]"),
            at + "layers[1].gla: share: s is the name of another kind of layer, layers[0].mlp");
}

}  // namespace
}  // namespace tessera
