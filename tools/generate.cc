#include <cerrno>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "core/status.h"
#include "generate/generator.h"
#include "generate/stop_text.h"
#include "io/files.h"
#include "tools/command.h"
#include "train/run.h"

namespace tessera {
namespace {

struct Options {
  std::string run, prompt, prompt_file, device = "auto";
  std::vector<std::string> stops;
  int64_t tokens = 200;
  Sampling sampling;
  bool has_prompt = false, has_prompt_file = false, json = false;
};

// Every byte of a file, a pipe or, for "-", standard input.
absl::StatusOr<std::string> ReadPrompt(const std::string& path) {
  constexpr size_t kMost_bytes = size_t{64} << 20;
  const bool standard = path == "-";
  const std::string name = standard ? "standard input" : path;
  FILE* const file = standard ? stdin : std::fopen(path.c_str(), "rb");
  if (file == nullptr) return FileError("cannot open", name, errno);
  std::string text;
  char buffer[1 << 16];
  while (const size_t got = std::fread(buffer, 1, sizeof buffer, file)) {
    text.append(buffer, got);
    if (text.size() > kMost_bytes) break;
  }
  const int error = std::ferror(file) != 0 ? errno : 0;
  if (!standard) std::fclose(file);
  if (error != 0) return FileError("cannot read", name, error);
  if (text.size() > kMost_bytes)
    return absl::InvalidArgumentError(
        absl::StrCat(name, " has more than the ", kMost_bytes, " bytes that a prompt may have"));
  return text;
}

absl::StatusOr<std::string> PromptOf(const Options& o) {
  if (o.has_prompt == o.has_prompt_file)
    return absl::InvalidArgumentError(
        "give the prompt by either --prompt TEXT or --prompt-file FILE (- is standard input)");
  if (o.has_prompt) return o.prompt;
  return ReadPrompt(o.prompt_file);
}

// The library alone would wrap a minus and stop at the largest number.
std::string CheckSeed(const std::string& text) {
  uint64_t seed = 0;
  if (absl::SimpleAtoi(text, &seed) && absl::StrCat(seed) == text) return "";
  return absl::StrCat("expected a whole number from 0 to ", UINT64_MAX, ", got '", text, "'");
}

int GenerateCommand(const Options& o) {
  if (const absl::Status s = o.sampling.Check(); !s.ok()) return Fail(s, 2);
  for (const std::string& stop : o.stops)
    if (stop.empty())
      return Fail(absl::InvalidArgumentError("--stop: an empty text would stop everything"), 2);
  const absl::StatusOr<std::string> text = PromptOf(o);
  if (!text.ok()) return Fail(text.status(), CodeOf(text.status()));
  std::string line;
  const absl::StatusOr<Device> device = OpenDevice(o.device, &line);
  if (!device.ok()) return Fail(device.status(), 1);
  if (!o.json) std::fprintf(stderr, "%s\n", line.c_str());
  const absl::StatusOr<LoadedRun> run = LoadRun(o.run, *device);
  if (!run.ok()) return Fail(run.status(), 1);
  const auto document = DocumentToken(run->config.train.data.Config(), *run->tokenizer);
  if (!document.ok()) return Fail(document.status(), 1);
  const auto prompt = EncodePrompt(*run->tokenizer, *text, run->model->vocab_size(), *document);
  if (!prompt.ok()) return Fail(prompt.status(), 2);

  StopText out(o.stops);
  bool ended = false;  // by the token that the run's documents end with
  std::string written;
  const auto show = [&](const std::string& bytes) {
    written += bytes;
    if (o.json) return true;
    std::fwrite(bytes.data(), 1, bytes.size(), stdout);
    return std::fflush(stdout) == 0;
  };
  if (!o.json) std::fwrite(text->data(), 1, text->size(), stdout);
  const absl::StatusOr<Generation> g = Generate(
      *run->model, *device, *prompt, o.tokens, o.sampling, run->config.train.precision,
      [&](int32_t token) {
        ended = token == *document;
        return !ended && show(out.Take(run->tokenizer->TokenBytes(token))) && !out.stopped();
      });
  show(out.Rest());
  if (!g.ok()) {
    if (!o.json) std::printf("\n");
    return Fail(g.status(), CodeOf(g.status()));
  }
  const double prefill = static_cast<double>(g->prompt_tokens) / std::max(1e-9, g->prefill_seconds);
  const double decode = static_cast<double>(g->decoded_tokens) / std::max(1e-9, g->decode_seconds);
  if (!o.json) {
    std::printf("\n");
    std::fprintf(stderr, "prefill %ld tokens at %.0f tokens/s, decode %ld at %.0f tokens/s\n",
                 static_cast<long>(g->prompt_tokens), prefill, static_cast<long>(g->decoded_tokens),
                 decode);
    return 0;
  }
  const nlohmann::json result = {{"prompt", *text},
                                 {"text", written},
                                 {"tokens", g->tokens},
                                 {"finish", out.stopped() ? "stop"
                                            : ended       ? "end"
                                                          : "length"},
                                 {"prefill_tokens_per_second", prefill},
                                 {"decode_tokens_per_second", decode},
                                 {"state_bytes", g->state_bytes}};
  std::printf("%s\n", result.dump(2, ' ', false, nlohmann::json::error_handler_t::replace).c_str());
  return 0;
}

}  // namespace

void AddGenerate(CLI::App* app, int* code) {
  auto o = std::make_shared<Options>();
  CLI::App* c = app->add_subcommand("generate", "continue a prompt with a trained run");
  c->add_option("--run", o->run, "run directory")->required();
  CLI::Option* const prompt = c->add_option("--prompt", o->prompt, "text to continue");
  CLI::Option* const prompt_file = c->add_option(
      "--prompt-file", o->prompt_file, "a file to continue, every byte of it; - is standard input");
  AddDevice(c, &o->device);
  AddIsa(c);
  c->add_option("--tokens", o->tokens, "new tokens, at most")->check(WholeNumber(1));
  c->add_option("--stop", o->stops, "end before this text; may be given several times")
      ->allow_extra_args(false);
  c->add_option("--temperature", o->sampling.temperature, "0 takes the most likely token");
  c->add_option("--top-k", o->sampling.top_k, "keep the k most likely; 0 keeps all")
      ->check(WholeNumber(0));
  c->add_option("--top-p", o->sampling.top_p, "keep the fewest that hold this probability");
  c->add_option("--min-p", o->sampling.min_p, "keep those this likely relative to the best");
  c->add_option("--seed", o->sampling.seed, "of the draws")
      ->check(CLI::Validator(CheckSeed, "", ""));
  c->add_flag("--json", o->json, "for scripts");
  c->footer(
      "A run whose data has documents that a token ends (train.data.document_token, or "
      "document_id)\n"
      "stops at that token, and starts from it where the prompt is empty.\n"
      "Examples:\n  tessera generate --run runs/quickstart --prompt 'The table'\n"
      "  tessera generate --run runs/quickstart --prompt 'The ' --temperature 0 --json\n"
      "  tessera generate --run runs/quickstart --prompt-file notes.txt --stop $'\\n\\n'");
  c->callback([=] {
    o->has_prompt = prompt->count() > 0;
    o->has_prompt_file = prompt_file->count() > 0;
    *code = GenerateCommand(*o);
  });
}

}  // namespace tessera
