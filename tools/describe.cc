#include <cstdio>
#include <nlohmann/json.hpp>

#include "arch/cost.h"
#include "arch/draw.h"
#include "data/tokenizer.h"
#include "tools/command.h"
#include "train/run_config.h"
#include "train/trainer.h"

namespace tessera {
namespace {

nlohmann::json CostJson(const ModelCost& c, int64_t standing_bytes,
                        const std::vector<std::string>& warnings) {
  nlohmann::json layers = nlohmann::json::array();
  for (const LayerCost& l : c.layers)
    layers.push_back(
        {{"path", l.path},
         {"parameters", l.parameters},
         {"active_parameters", l.active_parameters},
         {"flops_per_token", {{"forward", l.forward_flops}, {"training", l.training_flops}}},
         {"state_bytes", l.state_bytes},
         {"kv_bytes_per_token", l.kv_bytes_per_token},
         {"activation_bytes", l.activation_bytes}});
  return {{"parameters", c.parameters},
          {"active_parameters", c.active_parameters},
          {"trained_parameters", c.trained_parameters},
          {"flops_per_token",
           {{"forward", c.forward_flops},
            {"training", c.training_flops},
            {"recompute", c.recompute_flops}}},
          {"state_bytes", c.state_bytes},
          {"kv_bytes_per_token", c.kv_bytes_per_token},
          {"activation_bytes", c.activation_bytes},
          {"standing_bytes", standing_bytes},
          {"cuda_scratch_bytes", c.cuda_scratch_bytes},
          {"batch", c.batch},
          {"seq", c.seq},
          {"layers", layers},
          {"warnings", warnings}};
}

void PrintTable(const RunConfig& config, int64_t vocab_size, const ModelCost& c,
                int64_t standing_bytes) {
  std::printf("%s: d_model %ld, vocabulary %s, %s on cpu (%s)\n\n", config.name.c_str(),
              static_cast<long>(config.model.d_model), config.model.vocab.c_str(),
              Name(config.train.precision), Name(ActiveIsa()));
  std::printf("%s\n", DrawGraph(config.model, vocab_size).c_str());
  std::printf("  %-28s %12s %12s %14s %14s %12s %10s %14s\n", "layer", "parameters", "active",
              "forward F/tok", "training F/tok", "state B", "KV B/tok", "activations B");
  for (const LayerCost& l : c.layers)
    std::printf("  %-28s %12ld %12ld %14.0f %14.0f %12ld %10ld %14ld\n", l.path.c_str(),
                l.parameters, l.active_parameters, l.forward_flops, l.training_flops, l.state_bytes,
                l.kv_bytes_per_token, l.activation_bytes);
  std::printf("  %-28s %12ld %12ld %14.0f %14.0f %12ld %10ld %14ld\n", "total", c.parameters,
              c.active_parameters, c.forward_flops, c.training_flops, c.state_bytes,
              c.kv_bytes_per_token, c.activation_bytes);
  std::printf(
      "\nActivations are of a training pass over %ld x %ld tokens: what each layer keeps for "
      "the backward pass;\nin all %.1f MiB at the peak. Kernels on a GPU take %.1f MiB more.\n",
      c.batch, c.seq, static_cast<double>(c.activation_bytes) * 0x1p-20,
      static_cast<double>(c.cuda_scratch_bytes) * 0x1p-20);
  if (c.trained_parameters < c.parameters)
    std::printf("%ld of the %ld parameters are trained; the others stay as they are.\n",
                static_cast<long>(c.trained_parameters), static_cast<long>(c.parameters));
  std::printf("Parameters, gradients and what %s keeps of them take %.1f MiB beside these.\n",
              config.train.optimizer.type->name, static_cast<double>(standing_bytes) * 0x1p-20);
}

int Describe(const std::string& path, const std::vector<std::string>& overrides, bool json) {
  const absl::StatusOr<RunConfig> config = ReadRunConfig(path, overrides);
  if (!config.ok()) return Fail(config.status(), kMistake);
  const auto tokenizer = LoadTokenizer(config->model.vocab);
  if (!tokenizer.ok()) return Fail(tokenizer.status(), kMistake);
  const TrainConfig& t = config->train;
  const ModelCost cost =
      MeasureCost(config->model, (*tokenizer)->vocab_size(), t.batch, t.seq, t.precision);
  const int64_t standing_bytes = Trainer::StandingBytes(*config, (*tokenizer)->vocab_size());
  const std::vector<std::string> warnings = Warnings(*config);
  for (const std::string& w : warnings) std::fprintf(stderr, "warning: %s\n", w.c_str());
  if (json) {
    std::printf("%s\n", CostJson(cost, standing_bytes, warnings).dump(2).c_str());
  } else {
    PrintTable(*config, (*tokenizer)->vocab_size(), cost, standing_bytes);
  }
  return kDone;
}

}  // namespace

void AddDescribe(CLI::App* app, int* code) {
  struct Options {
    std::string config;
    std::vector<std::string> overrides;
    bool json = false;
  };
  auto o = std::make_shared<Options>();
  CLI::App* c = app->add_subcommand("describe", "what a config costs, before anything runs");
  c->add_option("config", o->config, "a YAML file")->required();
  c->add_option("overrides", o->overrides,
                "key=value, such as train.seq=1024; '~key' takes a key away");
  c->add_flag("--json", o->json, "for scripts");
  c->footer(
      "Examples:\n  tessera describe configs/quickstart.yaml\n"
      "  tessera describe configs/quickstart.yaml train.seq=4096 'model.layers[4].gla.heads=2' "
      "--json");
  c->callback([=] { *code = Describe(o->config, o->overrides, o->json); });
}

}  // namespace tessera
