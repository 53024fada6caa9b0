#include "arch/model.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "arch/cost.h"
#include "arch/traits.h"
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
  ModelConfig config = ReadModelConfig(node, {}, &errors);
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
    "{attention: {heads: 2, kv_heads: 2, head_dim: 4, window: 3, kv_from: keys}}, gla]",
    "[{mlp: {d_ff: 8}, recompute: true}, {gla: {heads: 2}, recompute: true, norm: sandwich}]",
    "[{mlp: {d_ff: 8}, residual: false, norm: sandwich}, {gla: {heads: 2}, residual: false}]",
    "[{recurrent: {layers: [{gla: {heads: 2}}, {attention: {heads: 2, window: 4}}]}}]",
    "[{mlp: {d_ff: 8}, name: a}, {recurrent: {steps: 2, inject: true, layers: [{mlp: {d_ff: 8}, "
    "input: a}, {gla: {heads: 2}}]}, residual: false, norm: none, recompute: true}]",
    "[{attention: {heads: 2}, name: a}, {recurrent: {layers: [{attention: {heads: 2, kv_from: a}, "
    "recompute: true}, {mlp: {d_ff: 8}, name: a}, {mlp: {d_ff: 8}, input: a}], steps: 2}}]",
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
    const std::vector<std::vector<float>> others = {
        net.Logits({5, 1, 4, 2}, 0), net.Logits(tokens, 0), net.Logits(tokens, kT),
        net.Logits({7, 1, 1, 1, 1, 1}, kT), net.Logits({5, 1, 4, 2}, kT)};
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

// Layers that run n times are n layers that share their weights.
TEST(Model, RecurrentLayersAreSharedLayers) {
  Net loop(
      "[{recurrent: {steps: 2, layers: [{gla: {heads: 2}}, {mlp: {d_ff: 8}}]}, norm: none, "
      "residual: false}]"),
      list(
          "[{gla: {heads: 2}, share: a}, {mlp: {d_ff: 8}, share: b}, {gla: {heads: 2}, share: a}, "
          "{mlp: {d_ff: 8}, share: b}]");
  EXPECT_EQ(loop.parameters().all().size(), list.parameters().all().size());
  for (const Parameter& p : loop.parameters().all()) {
    std::string twin = p.name;
    if (twin.starts_with("layers[0].recurrent.")) twin = twin.substr(20);
    std::copy_n(p.var.data<float>(), p.var.shape().elements(), list.At(twin));
  }
  EXPECT_NEAR(loop.Loss(), list.Loss(), 1e-5);
}

TEST(Model, RecurrentLayersReadTheInputAgainWhereAsked) {
  const std::string mlp = "{mlp: {d_ff: 8}, norm: none, residual: false, share: a}";
  Net loop(
      "[{recurrent: {steps: 2, inject: true, layers: [{mlp: {d_ff: 8}, norm: none, residual: "
      "false}]}, norm: none, residual: false}]"),
      // S(S(x) + x): the first layer adds x to its output.
      list("[{mlp: {d_ff: 8}, norm: none, share: a}, " + mlp + "]");
  for (const Parameter& p : loop.parameters().all()) {
    std::string twin = p.name;
    if (twin.starts_with("layers[0].recurrent.")) twin = twin.substr(20);
    std::copy_n(p.var.data<float>(), p.var.shape().elements(), list.At(twin));
  }
  EXPECT_NEAR(loop.Loss(), list.Loss(), 1e-5);
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

// The parameters of a graph whose names end in `name`, by their layer.
std::vector<std::string> WithParameter(const std::string& graph, const std::string& name) {
  Net net(graph);
  std::vector<std::string> layers;
  for (const Parameter& p : net.parameters().all())
    if (p.name.ends_with("." + name))
      layers.push_back(p.name.substr(0, p.name.size() - name.size() - 1));
  return layers;
}

TEST(Model, PortsAreReadFromTheFirstThePreviousOrANamedLayer) {
  using Layers = std::vector<std::string>;
  // All but the first read the first, which is one config repeated.
  EXPECT_EQ(
      WithParameter("[mlp, {repeat: 3, layers: [{attention: {heads: 2, kv_from: first}}]}]", "k"),
      Layers{"layers[1].attention"});
  // Pairs: each second one reads the one before.
  EXPECT_EQ(WithParameter("[{repeat: 2, layers: [{attention: {heads: 2}}, gla, {attention: {heads: "
                          "2, kv_from: previous}}]}]",
                          "k"),
            (Layers{"layers[0].attention", "layers[3].attention"}));
  // A name goes before the words, and a branch provides as a layer does.
  EXPECT_EQ(WithParameter("[{attention: {heads: 4}}, {parallel: {branches: [mlp, {attention: "
                          "{heads: 2}}]}, name: first}, {attention: {heads: 2, kv_from: first}}]",
                          "k"),
            (Layers{"layers[0].attention", "layers[1].parallel[1].attention"}));
  // The layers inside see those outside before them.
  EXPECT_EQ(WithParameter("[{attention: {heads: 2}}, {recurrent: {layers: [{attention: {heads: 2, "
                          "kv_from: first}}, {attention: {heads: 2, kv_from: previous}}]}}]",
                          "k"),
            Layers{"layers[0].attention"});
}

// A reader has the result that it would have with the weights and the input of the one it reads.
TEST(Model, WhatIsReadFromAPortIsWhatWasLeftThere) {
  const std::string source = "{attention: {heads: 2, rope: none}, name: a, norm: none, ";
  Net reads("[" + source +
            "residual_scale: 0}, {attention: {heads: 2, rope: none, kv_from: a}, "
            "norm: none}]"),
      own("[" + source + "residual_scale: 0}, {attention: {heads: 2, rope: none}, norm: none}]");
  for (const Parameter& p : reads.parameters().all())
    std::copy_n(p.var.data<float>(), p.var.shape().elements(), own.At(p.name));
  for (const char* w : {"k", "v"})
    std::copy_n(reads.At(std::string("layers[0].attention.") + w), 16 * 16,
                own.At(std::string("layers[1].attention.") + w));
  EXPECT_EQ(reads.Loss(), own.Loss());
}

// Layers that run again read ports and leave them: the same gradients.
TEST(Model, PortsPassThroughLayersThatRunAgain) {
  for (const std::string graph :
       {"[{attention: {heads: 2}, name: a*}, gla, {attention: {heads: 2, kv_from: a}*}]",
        "[{attention: {heads: 2, window: 4}, name: a*}, {parallel: {branches: [mlp, {attention: "
        "{heads: 2, window: 3, kv_from: first}}]}*}, {mlp: {d_ff: 8}, input: a*}]",
        "[{attention: {heads: 2}, name: a*}, {recurrent: {layers: [{attention: {heads: 2, kv_from: "
        "a}*}, {attention: {heads: 2}*}, {attention: {heads: 2, kv_from: previous}*}, {mlp: {d_ff: "
        "8}, input: a*}]}*}]"}) {
    SCOPED_TRACE(graph);
    const auto with = [&](const std::string& more) {
      std::string text;
      for (const char c : graph) text += c == '*' ? more : std::string(1, c);
      return text;
    };
    Net plain(with("")), again(with(", recompute: true"));
    for (const std::vector<int64_t>& chunks : {std::vector<int64_t>{kT}, {5, 1, 4, 2}}) {
      CostCounter plain_cost, again_cost;
      const auto want = plain.ChunkGradients(chunks, &plain_cost);
      const auto got = again.ChunkGradients(chunks, &again_cost);
      ASSERT_EQ(got.size(), want.size());
      EXPECT_EQ(want.size() + 1, plain.parameters().all().size()) << "all but the head's";
      EXPECT_GT(again_cost.Total().recompute.flops, 0);
      for (const auto& [name, g] : want)
        for (size_t i = 0; i < g.size(); ++i)
          ASSERT_NEAR(got.at(name)[i], g[i], 1e-4 * (1 + std::abs(g[i]))) << name << " " << i;
    }
  }
}

// Keys of a causal layer serve one that is not, of any window, and so do those of one that is not.
TEST(Model, AttentionThatSeesLaterTokensReadsAnyKeys) {
  for (const std::string source : {"window: 4", "causal: false, window: 4", "causal: false"}) {
    Net net("[{attention: {heads: 2, " + source +
            "}, name: a}, {attention: {heads: 2, causal: false, kv_from: a}}]");
    EXPECT_TRUE(std::isfinite(net.Loss(true)));
  }
}

TEST(Model, AttentionThatSeesLaterTokensCannotGenerate) {
  const auto config = Read(
      "{d_model: 16, layers: [{attention: {heads: 2}}, {recurrent: {layers: [{attention: {heads: "
      "2, causal: false}}]}}]}");
  ASSERT_TRUE(config.ok()) << config.status();
  ErrorList errors;
  CheckGeneration(config->layers, &errors);
  EXPECT_EQ(std::string(errors.ToStatus().message()),
            "m:1:72: layers[1].recurrent.layers[0].attention: cannot generate: a token's result "
            "depends on later ones, since with causal: false its tokens see those behind them");
}

TEST(Model, MistakesInTheGraphAreTold) {
  const auto told = [](const std::string& layers) {
    return std::string(Read("{d_model: 16, layers: " + layers + "}").status().message());
  };
  const std::string source = "{attention: {heads: 2, window: 4}, name: a}";
  EXPECT_EQ(told("[{attention: {kv_from: a}}]"),
            "m:1:25: layers[0].attention: kv_from: no earlier layer has the name 'a'");
  EXPECT_EQ(told("[{attention: {kv_from: a}}, {attention: {}, name: a}]"),
            "m:1:25: layers[0].attention: kv_from: no earlier layer has the name 'a'; "
            "layers[1].attention, which has it, is not before this one");
  EXPECT_EQ(told("[{gla: {}, name: a}, {attention: {kv_from: a}}]"),
            "m:1:45: layers[1].attention: kv_from: the layer 'a', layers[0].gla, provides no kv");
  EXPECT_EQ(told("[gla, {attention: {kv_from: previous}}]"),
            "m:1:30: layers[1].attention: kv_from: no earlier layer provides kv");
  EXPECT_EQ(told("[" + source + ", {attention: {heads: 4, window: 4, kv_from: a}}]"),
            "m:1:70: layers[1].attention: kv_from: the layer 'a', layers[0].attention, provides kv "
            "of 2 x 8, 2 x 8 a token, and this one reads 4 x 4, 4 x 4; make kv_heads, head_dim and "
            "causal equal, and this window no wider");
  EXPECT_EQ(told("[" + source + ", {attention: {heads: 2, kv_from: a}}]"),
            "m:1:70: layers[1].attention: kv_from: the layer 'a', layers[0].attention, provides kv "
            "of the last 4 tokens, and this one reads that of all tokens; make kv_heads, head_dim "
            "and causal equal, and this window no wider");
  EXPECT_EQ(
      told("[{attention: {heads: 2, causal: false}, name: a}, {attention: {heads: 2, kv_from: "
           "a}}]"),
      "m:1:74: layers[1].attention: kv_from: the layer 'a', layers[0].attention, provides kv "
      "of tokens that it keeps no state of, and this one reads that of all tokens; make "
      "kv_heads, head_dim and causal equal, and this window no wider");
  EXPECT_EQ(told("[{attention: {heads: 2, causal: false, window: 1}}]"),
            "m:1:25: attention: with window = 1 a token sees itself alone, and causal: "
            "false changes nothing; use a wider window or causal: true");
  EXPECT_EQ(
      told("[" + source +
           ", {attention: {heads: 2, kv_from: a, window: 3}, name: b}, "
           "{attention: {heads: 2, kv_from: b, window: 2}}]"),
      "m:1:127: layers[2].attention: kv_from: the layer 'b', layers[1].attention, provides no "
      "kv");
  EXPECT_EQ(
      told("[{parallel: {branches: [{attention: {heads: 2}}, {attention: {heads: 2}}]}, name: "
           "a}, {attention: {heads: 2, kv_from: a}}]"),
      "m:1:110: layers[1].attention: kv_from: the layer 'a', layers[0].parallel, has several "
      "branches that provide kv; read from a layer of one");
  EXPECT_EQ(told("[{mlp: {}, share: s}, {gla: {}, share: s}]"),
            "m:1:46: layers[1].gla: share: s is the name of another kind of layer, layers[0].mlp");
  EXPECT_EQ(told("[{attention: {heads: 2, kv_from: first}, share: s}, {attention: {heads: 2, "
                 "kv_from: first}, share: s}]"),
            "m:1:76: layers[1].attention: share: s is the name of another kind of layer, "
            "layers[0].attention")
      << "one has keys, the other reads them";
}

}  // namespace
}  // namespace tessera
