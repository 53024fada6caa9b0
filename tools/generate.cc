#include <cstdio>
#include <nlohmann/json.hpp>

#include "generate/generator.h"
#include "tools/command.h"
#include "train/run.h"

namespace tessera {
namespace {

struct Options {
  std::string run, prompt, device = "auto";
  int64_t tokens = 200;
  Sampling sampling;
  bool json = false;
};

int GenerateCommand(const Options& o) {
  if (const absl::Status s = o.sampling.Check(); !s.ok()) return Fail(s, 2);
  std::string line;
  const absl::StatusOr<Device> device = OpenDevice(o.device, &line);
  if (!device.ok()) return Fail(device.status(), 1);
  if (!o.json) std::fprintf(stderr, "%s\n", line.c_str());
  const absl::StatusOr<LoadedRun> run = LoadRun(o.run, *device);
  if (!run.ok()) return Fail(run.status(), 1);
  const auto prompt = EncodePrompt(*run->tokenizer, o.prompt, run->model->vocab_size());
  if (!prompt.ok()) return Fail(prompt.status(), 2);
  if (!o.json) std::fputs(o.prompt.c_str(), stdout);
  const Generation g = Generate(*run->model, *device, *prompt, o.tokens, o.sampling,
                                run->config.train.precision, [&](int32_t token) {
                                  if (o.json) return true;
                                  const absl::string_view bytes = run->tokenizer->TokenBytes(token);
                                  std::fwrite(bytes.data(), 1, bytes.size(), stdout);
                                  std::fflush(stdout);
                                  return true;
                                });
  const double prefill = static_cast<double>(g.prompt_tokens) / std::max(1e-9, g.prefill_seconds);
  const double decode = static_cast<double>(g.decoded_tokens) / std::max(1e-9, g.decode_seconds);
  if (!o.json) {
    std::printf("\n");
    std::fprintf(stderr, "prefill %ld tokens at %.0f tokens/s, decode %ld at %.0f tokens/s\n",
                 static_cast<long>(g.prompt_tokens), prefill, static_cast<long>(g.decoded_tokens),
                 decode);
    return 0;
  }
  const nlohmann::json out = {{"prompt", o.prompt},
                              {"text", run->tokenizer->Decode(g.tokens)},
                              {"tokens", g.tokens},
                              {"prefill_tokens_per_second", prefill},
                              {"decode_tokens_per_second", decode},
                              {"state_bytes", g.state_bytes}};
  std::printf("%s\n", out.dump(2, ' ', false, nlohmann::json::error_handler_t::replace).c_str());
  return 0;
}

}  // namespace

void AddGenerate(CLI::App* app, int* code) {
  auto o = std::make_shared<Options>();
  CLI::App* c = app->add_subcommand("generate", "continue a prompt with a trained run");
  c->add_option("--run", o->run, "run directory")->required();
  c->add_option("--prompt", o->prompt, "text to continue")->required();
  AddDevice(c, &o->device);
  AddIsa(c);
  c->add_option("--tokens", o->tokens, "new tokens")->check(WholeNumber(1));
  c->add_option("--temperature", o->sampling.temperature, "0 takes the most likely token");
  c->add_option("--top-k", o->sampling.top_k, "keep the k most likely; 0 keeps all");
  c->add_option("--top-p", o->sampling.top_p, "keep the fewest that hold this probability");
  c->add_option("--min-p", o->sampling.min_p, "keep those this likely relative to the best");
  c->add_option("--seed", o->sampling.seed, "of the draws");
  c->add_flag("--json", o->json, "for scripts");
  c->footer(
      "Examples:\n  tessera generate --run runs/quickstart --prompt 'The table'\n"
      "  tessera generate --run runs/quickstart --prompt 'The ' --temperature 0 --json");
  c->callback([=] { *code = GenerateCommand(*o); });
}

}  // namespace tessera
