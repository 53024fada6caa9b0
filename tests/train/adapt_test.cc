#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "core/parallel.h"
#include "core/status.h"
#include "data/tokenizer.h"
#include "io/files.h"
#include "tests/temporary_folder.h"
#include "train/export.h"
#include "train/run.h"

// Runs that begin with the weights of another: adapters on a frozen base, and what is saved, goes
// on, is merged and is refused.

namespace tessera {
namespace {

namespace fs = std::filesystem;

constexpr char kLayers[] =
    "[{attention: {heads: 2, window: 8}}, {moe: {experts: 4, top_k: 2, d_ff: 16}}, {mamba2: "
    "{d_state: 8, head_dim: 16}}, {gla: {heads: 2}, recompute: true}]";

class Adapt : public ::testing::Test {
 protected:
  Adapt() {
    std::ofstream text(At("text.txt"));
    for (int i = 0; i < 2000; ++i) text << "line " << i * i % 977 << " of the text\n";
  }
  ~Adapt() override { SetThreads(2); }
  std::string At(const std::string& name) { return folder_.path(name); }

  absl::StatusOr<RunConfig> Config(const std::string& model, const std::string& more = "") {
    return ParseRunConfig("model: {" + model + "}\ntrain: {data: {text: " + At("text.txt") +
                              "}, steps: 6, batch: 2, seq: 16, lr: 0.02, warmup: 0, eval_every: 0" +
                              more + "}\n",
                          "c", {});
  }
  absl::Status Train(const std::string& run, const std::string& model, const std::string& more = "",
                     RunMode mode = RunMode::kNew) {
    TESSERA_ASSIGN_OR_RETURN(const RunConfig config, Config(model, more));
    const volatile int interrupted = 0;
    return TrainRun(
               config, {.directory = At(run), .mode = mode}, &interrupted,
               [&](const Trainer& t, const StepReport& r) {
                 const double tokens = static_cast<double>(config.train.TokensPerStep());
                 EXPECT_NEAR(r.flops, t.cost().training_flops * tokens, 1) << "as was foretold";
                 losses_.push_back(r.loss);
               },
               [](const std::string&) {})
        .status();
  }
  void TrainBase() {
    ASSERT_TRUE(Train("base", absl::StrCat("d_model: 32, layers: ", kLayers)).ok());
    losses_.clear();
  }
  // A model like the base's, and adapters.
  std::string FromBase(const std::string& lora, const std::string& base = "base") {
    return absl::StrCat("from: ", At(base), ", adapt: {lora: ", lora, "}");
  }
  std::string File(const std::string& run, const std::string& name, int step = 6) {
    const auto bytes =
        ReadFile(At(absl::StrCat(run, "/checkpoints/step-0000000", step, "/", name)));
    EXPECT_TRUE(bytes.ok()) << bytes.status();
    return bytes.ok() ? *bytes : "";
  }
  std::vector<std::string> NamesIn(const std::string& run, const std::string& name, int step = 6) {
    const auto file =
        SafetensorsFile::Open(At(absl::StrCat(run, "/checkpoints/step-0000000", step, "/", name)));
    EXPECT_TRUE(file.ok()) << file.status();
    std::vector<std::string> names;
    if (file.ok())
      for (const TensorView& t : file->tensors()) names.push_back(t.name);
    return names;
  }
  // The last norm's outputs over some tokens.
  static std::vector<float> Hidden(const LoadedRun& run) {
    Arena arena(Arena::Backing::kMemory, 1 << 26);
    Context ctx(Device::kCpu, &arena);
    const Tensor tokens = ctx.New({1, 40}, DType::kI32);
    ctx.position = ctx.New({1, 40}, DType::kI32);
    for (int i = 0; i < 40; ++i) {
      tokens.data<int32_t>()[i] = i * 31 % 256;
      ctx.position.data<int32_t>()[i] = i;
    }
    const Var y = run.model->Hidden(ctx, tokens, nullptr);
    return {y.data<float>(), y.data<float>() + y.value().elements()};
  }
  static double Distance(const std::vector<float>& a, const std::vector<float>& b) {
    double square = 0, size = 0;
    for (size_t i = 0; i < a.size(); ++i) {
      square += std::pow(static_cast<double>(a[i]) - static_cast<double>(b[i]), 2);
      size += std::pow(static_cast<double>(b[i]), 2);
    }
    return std::sqrt(square / size);
  }
  std::string Told(const absl::Status& status) {
    // Places of a test's own are no part of a message.
    std::string text(status.message());
    for (const std::string& own : {At(""), fs::path(At("")).lexically_normal().string()})
      for (size_t at; (at = text.find(own)) != std::string::npos;) text.erase(at, own.size());
    return text;
  }

  TemporaryFolder folder_;
  std::vector<double> losses_;
};

TEST_F(Adapt, TrainsAdaptersAloneAndSavesThemAlone) {
  TrainBase();
  ASSERT_TRUE(Train("run", FromBase("{rank: 2, match: '*'}"), ", save_every: 1, keep: 9").ok());
  for (const char* file : {"model.safetensors", "optimizer.safetensors"})
    for (const std::string& name : NamesIn("run", file))
      EXPECT_NE(name.find(".lora."), std::string::npos) << file << ": " << name;
  EXPECT_EQ(NamesIn("run", "model.safetensors").size() * 2,
            NamesIn("run", "optimizer.safetensors").size());
  const auto base = LoadRun(At("base")), run = LoadRun(At("run"));
  ASSERT_TRUE(base.ok()) << base.status();
  ASSERT_TRUE(run.ok()) << run.status();
  size_t same = 0;
  for (const Parameter& p : base->parameters->all()) {
    const Parameter* const q = run->parameters->Find(p.name);
    ASSERT_NE(q, nullptr) << p.name;
    EXPECT_EQ(std::memcmp(p.var.value().raw(), q->var.value().raw(),
                          static_cast<size_t>(p.var.value().bytes())),
              0)
        << p.name << " is not the base's";
    ++same;
  }
  EXPECT_GT(run->parameters->all().size(), same);
  EXPECT_GT(Distance(Hidden(*run), Hidden(*base)), 1e-3) << "and the adapters do something";
  EXPECT_NE(File("run", "model.safetensors", 1), File("run", "model.safetensors", 2));
}

// The first step of either run sees the base's function: the same loss, which is not that of
// weights at their start.
TEST_F(Adapt, BeginsWithTheBase) {
  TrainBase();
  ASSERT_TRUE(Train("adapted", FromBase("{rank: 2}"), ", stop_at: 1").ok());
  ASSERT_TRUE(Train("whole", "from: " + At("base"), ", stop_at: 1").ok());
  ASSERT_TRUE(Train("frozen", "from: " + At("base"), ", stop_at: 1, freeze: ['*|!mamba2.*']").ok());
  ASSERT_TRUE(Train("new", absl::StrCat("d_model: 32, layers: ", kLayers), ", stop_at: 1").ok());
  EXPECT_EQ(losses_[0], losses_[1]);
  EXPECT_EQ(losses_[0], losses_[2]);
  EXPECT_LT(losses_[0], losses_[3] - 0.1);
  const size_t all = NamesIn("base", "model.safetensors").size();
  EXPECT_EQ(NamesIn("whole", "model.safetensors", 1).size(), all) << "it trains them all";
  for (const std::string& name : NamesIn("frozen", "model.safetensors", 1))
    EXPECT_NE(name.find("mamba2."), std::string::npos) << name;
  // A run that holds all of its weights does not need its base, and may be one.
  fs::rename(At("base"), At("away"));
  EXPECT_TRUE(LoadRun(At("whole")).ok());
  EXPECT_FALSE(LoadRun(At("frozen")).ok());
  EXPECT_TRUE(Train("whole", absl::StrCat("from: ", At("base"), ", d_model: 32, layers: ", kLayers),
                    "", RunMode::kResume)
                  .ok());
  EXPECT_TRUE(Train("third", FromBase("{rank: 1}", "whole"), ", stop_at: 1").ok());
}

// A base that has a base of its own, of which its checkpoint leaves a part out.
TEST_F(Adapt, BasesMayHaveBases) {
  TrainBase();
  ASSERT_TRUE(Train("second", "from: " + At("base"), ", freeze: ['*|!mamba2.*']").ok());
  ASSERT_TRUE(Train("third", FromBase("{rank: 1}", "second"), ", stop_at: 1").ok());
  const auto second = LoadRun(At("second")), third = LoadRun(At("third"));
  ASSERT_TRUE(second.ok()) << second.status();
  ASSERT_TRUE(third.ok()) << third.status();
  for (const Parameter& p : second->parameters->all())
    EXPECT_EQ(std::memcmp(p.var.value().raw(), third->parameters->Find(p.name)->var.value().raw(),
                          static_cast<size_t>(p.var.value().bytes())),
              0)
        << p.name;
}

TEST_F(Adapt, ResumesWithTheSameBits) {
  TrainBase();
  const std::string model = FromBase("{rank: 2}");
  for (const char* optimizer : {"adamw", "muon"}) {
    const std::string more = absl::StrCat(", optimizer: ", optimizer), run = optimizer;
    ASSERT_TRUE(Train(run + "whole", model, more + ", threads: 1").ok());
    ASSERT_TRUE(Train(run + "parts", model, more + ", threads: 2, stop_at: 3").ok());
    ASSERT_TRUE(Train(run + "parts", model, more + ", threads: 4", RunMode::kResume).ok());
    for (const char* file : {"model.safetensors", "optimizer.safetensors"})
      EXPECT_EQ(File(run + "whole", file), File(run + "parts", file)) << optimizer << " " << file;
  }
}

TEST_F(Adapt, KeepsNoGradientsAndStatesOfTheBase) {
  const std::string layers = absl::StrCat("d_model: 32, layers: ", kLayers);
  const auto whole = Config(layers), adapted = Config("adapt: {lora: {rank: 1}}, " + layers);
  ASSERT_TRUE(whole.ok() && adapted.ok()) << adapted.status();
  const ModelCost cost = MeasureCost(adapted->model, 256, 2, 16, DType::kF32);
  // Weights, gradients and two moments of AdamW; then weights, and the rest of adapters alone.
  const int64_t all = Trainer::StandingBytes(*whole, 256),
                alone = Trainer::StandingBytes(*adapted, 256);
  const int64_t other = all - 4 * 4 * MeasureCost(whole->model, 256, 2, 16, DType::kF32).parameters;
  EXPECT_NEAR(static_cast<double>(alone),
              static_cast<double>(other + 4 * (cost.parameters + 3 * cost.trained_parameters)),
              0.02 * static_cast<double>(alone));
  EXPECT_LT(alone, all / 3);
}

// Merged weights make the same function within the rounding of fp32, in attention, experts, the
// state-space and the gated linear block, and the result is a run as any other.
TEST_F(Adapt, MergedIsUnmerged) {
  TrainBase();
  ASSERT_TRUE(Train("run", FromBase("{rank: 2, alpha: 8, match: 'layers*'}")).ok());
  const absl::Status merged = ExportMerged(At("run"), At("merged"));
  ASSERT_TRUE(merged.ok()) << merged;
  const auto base = LoadRun(At("base")), run = LoadRun(At("run")), one = LoadRun(At("merged"));
  ASSERT_TRUE(one.ok()) << one.status();
  EXPECT_EQ(one->step, 6);
  EXPECT_EQ(one->parameters->all().size(), base->parameters->all().size());
  EXPECT_LT(Distance(Hidden(*one), Hidden(*run)), 2e-6);
  EXPECT_GT(Distance(Hidden(*one), Hidden(*base)), 1e-2);
  for (const Parameter& p : base->parameters->all()) {
    const bool adapted = run->parameters->Find(p.name + ".lora.A") != nullptr;
    const bool same =
        std::memcmp(p.var.value().raw(), one->parameters->Find(p.name)->var.value().raw(),
                    static_cast<size_t>(p.var.value().bytes())) == 0;
    EXPECT_NE(adapted, same) << p.name;
  }
  // It is a base, without the runs that it came from.
  fs::remove_all(At("run"));
  fs::remove_all(At("base"));
  EXPECT_TRUE(Train("next", FromBase("{rank: 1}", "merged"), ", stop_at: 1").ok());
  const std::string config = *ReadFile(At("merged/config.yaml"));
  EXPECT_NE(config.find("adapt: null"), std::string::npos) << config;
  EXPECT_EQ(Told(ExportMerged(At("merged"), At("again"))),
            "merged has nothing to merge: its model has no adapters (model.adapt), and its "
            "checkpoint holds all of its weights");
  EXPECT_EQ(Told(ExportMerged(At("next"), At("merged"))),
            "merged exists; choose another folder with -o");
  EXPECT_EQ(
      Told(Train("merged", absl::StrCat("d_model: 32, layers: ", kLayers), "", RunMode::kResume)),
      "merged/checkpoints/step-00000006 was exported, without the states of an optimiser, "
      "so that it cannot go on; begin a run with its weights: model.from=merged");
}

TEST_F(Adapt, ACheckpointIsABaseToo) {
  ASSERT_TRUE(
      Train("base", absl::StrCat("d_model: 32, layers: ", kLayers), ", save_every: 2, keep: 9")
          .ok());
  losses_.clear();
  ASSERT_TRUE(
      Train("a", FromBase("{rank: 1}", "base/checkpoints/step-00000002"), ", stop_at: 1").ok());
  ASSERT_TRUE(Train("b", FromBase("{rank: 1}", "base"), ", stop_at: 1").ok());
  EXPECT_NE(losses_[0], losses_[1]);
  EXPECT_TRUE(LoadRun(At("a")).ok()) << LoadRun(At("a")).status();
}

// A base that goes on, or moves, is known by its weights.
TEST_F(Adapt, GoesOnWithTheWeightsItBeganWith) {
  const std::string base = absl::StrCat("d_model: 32, layers: ", kLayers);
  ASSERT_TRUE(Train("base", base, ", stop_at: 3").ok());
  ASSERT_TRUE(Train("run", FromBase("{rank: 1}"), ", stop_at: 2").ok());
  ASSERT_TRUE(Train("base", base, "", RunMode::kResume).ok());
  const auto run = LoadRun(At("run"));
  ASSERT_TRUE(run.ok()) << run.status() << ": the older checkpoint is still there";
  const auto old = SafetensorsFile::Open(At("base/checkpoints/step-00000003/model.safetensors"));
  ASSERT_TRUE(old.ok()) << old.status();
  const Tensor& embedding = run->parameters->Find("model.embedding")->var.value();
  EXPECT_EQ(std::memcmp(embedding.raw(), old->Find("model.embedding")->data,
                        static_cast<size_t>(embedding.bytes())),
            0);
  fs::rename(At("base"), At("moved"));
  EXPECT_TRUE(Train("run", FromBase("{rank: 1}", "moved"), ", stop_at: 3", RunMode::kResume).ok());
  EXPECT_TRUE(LoadRun(At("run")).ok());
  fs::remove_all(At("moved/checkpoints/step-00000003"));
  EXPECT_EQ(LoadRun(At("run")).status().code(), absl::StatusCode::kDataLoss);
  EXPECT_PRED_FORMAT2(::testing::IsSubstring,
                      "moved does not hold the weights any more that this run began with, "
                      "step-00000003 with the hash ",
                      Told(LoadRun(At("run")).status()));
}

TEST_F(Adapt, BasesThatDoNotFitAreRefused) {
  TrainBase();
  EXPECT_EQ(Told(Train("run", FromBase("{rank: 1}", "none"))),
            "c.yaml:1:15: from: none does not exist");
  fs::create_directories(At("empty"));
  EXPECT_EQ(Told(Train("run", FromBase("{rank: 1}", "empty"))),
            "c.yaml:1:15: from: empty holds no run (there is no config.yaml in it)");
  EXPECT_EQ(Told(Train("run", FromBase("{rank: 1}", "base/checkpoints"))),
            "c.yaml:1:15: from: base/checkpoints is a part of a run; use from: base");
  std::ofstream(At("empty/config.yaml")) << *ReadFile(At("base/config.yaml"));
  EXPECT_EQ(Told(Train("run", FromBase("{rank: 1}", "empty"))),
            "c.yaml:1:15: from: no checkpoint in empty/checkpoints; one appears there after "
            "train.save_every steps");
  EXPECT_EQ(Told(Train("run", FromBase("{rank: 1}") + ", d_model: 64, norm: layer")),
            "c.yaml:1:15: from: base holds another model than the config (its -> the config's):\n"
            "  model.d_model: 32 -> 64\n  model.norm: rms -> layer\n"
            "leave model.layers and these keys out to have the run's model");
  EXPECT_EQ(Told(Train("run", FromBase("{rank: 1}") +
                                  ", d_model: 32, layers: [{attention: {heads: 4, window: 8}}]"))
                .substr(0, 168),
            "c.yaml:1:15: from: base holds another model than the config (its -> the config's):\n"
            "  model.layers[0].attention.heads: 2 -> 4\n"
            "  model.layers[1].dropout: null -> not set\n");
  EXPECT_FALSE(fs::exists(At("run"))) << "nothing is left behind";
  ASSERT_TRUE(Train("run", FromBase("{rank: 1}"), ", stop_at: 1").ok());
  EXPECT_EQ(Told(Train("second", FromBase("{rank: 1}", "run"))),
            "c.yaml:1:15: from: run has adapters itself; merge them first: tessera export run "
            "--merge -o DIRECTORY");
  EXPECT_PRED_FORMAT2(::testing::IsSubstring, "model.adapt.lora.rank: 1 -> 2",
                      Told(Train("run", FromBase("{rank: 2}"), ", stop_at: 2", RunMode::kResume)));
  EXPECT_EQ(Told(Train("zero", FromBase("{rank: 0}"))),
            "there is nothing to train: every parameter is frozen; give model.adapt.lora a rank of "
            "1 or more, or take patterns away from train.freeze");
}

}  // namespace
}  // namespace tessera
