#include "data/tokenizer.h"

#include <unistd.h>

#include <cstdio>

#include "core/status.h"
#include "data/bpe.h"
#include "data/bpe_file.h"
#include "data/text_kind.h"
#include "data/token_stream.h"
#include "io/files.h"
#include "tools/command.h"

namespace tessera {
namespace {

struct Options {
  std::string text, tokenizer = "bytes", out;
  std::vector<std::string> special;
  int64_t vocab = 4096;
  bool quiet = false;
};

// A file of text, with a warning where it does not look like one.
absl::StatusOr<std::string> ReadText(const std::string& path) {
  TESSERA_ASSIGN_OR_RETURN(std::string text, ReadFile(path, int64_t{1} << 40));
  TESSERA_ASSIGN_OR_RETURN(const std::string warning, CheckText(text, path));
  if (!warning.empty()) std::fprintf(stderr, "warning: %s\n", warning.c_str());
  return text;
}

int Train(const Options& o) {
  const absl::StatusOr<std::string> text = ReadText(o.text);
  if (!text.ok()) return Fail(text.status(), CodeOf(text.status()));
  const bool terminal = isatty(STDERR_FILENO) != 0;
  int64_t shown = -1;
  const auto progress = [&](int64_t learnt, int64_t wanted) {
    const int64_t part = wanted > 0 ? learnt * 20 / wanted : 20;
    if (o.quiet || (!terminal && part == shown)) return;
    shown = part;
    std::fprintf(stderr, "%s%ld of %ld tokens%s", terminal ? "\r\033[K" : "",
                 static_cast<long>(learnt), static_cast<long>(wanted), terminal ? "" : "\n");
  };
  const auto model = TrainBpe(*text, o.vocab, progress, o.special);
  if (terminal && !o.quiet) std::fprintf(stderr, "\r\033[K");
  if (!model.ok()) return Fail(model.status(), CodeOf(model.status()));
  if (const absl::Status s = AtomicWrite(o.out, WriteBpeJson(*model)); !s.ok()) return Fail(s, 1);
  const auto tokenizer = MakeBpeTokenizer(*model);
  if (!tokenizer.ok()) return Fail(tokenizer.status(), 1);
  const auto ids = (*tokenizer)->Encode(*text);
  if (!ids.ok()) return Fail(ids.status(), 1);
  if (o.quiet) return 0;
  std::printf(
      "%s: %s, %.3f bytes a token on %s\n", o.out.c_str(), (*tokenizer)->Describe().c_str(),
      static_cast<double>(text->size()) / static_cast<double>(std::max<size_t>(1, ids->size())),
      o.text.c_str());
  return 0;
}

int Encode(const Options& o) {
  const auto tokenizer = LoadTokenizer(o.tokenizer);
  if (!tokenizer.ok()) return Fail(tokenizer.status(), 2);
  const absl::StatusOr<std::string> text = ReadText(o.text);
  if (!text.ok()) return Fail(text.status(), CodeOf(text.status()));
  const auto ids = (*tokenizer)->Encode(*text);
  if (!ids.ok()) return Fail(ids.status(), 1);
  if (const absl::Status s = WriteTokens(o.out, *ids, (*tokenizer)->vocab_size()); !s.ok())
    return Fail(s, CodeOf(s));
  std::printf("%s: %zu tokens of %zu bytes of text (%s)\n", o.out.c_str(), ids->size(),
              text->size(), (*tokenizer)->Describe().c_str());
  return 0;
}

}  // namespace

void AddTokenizer(CLI::App* app, int* code) {
  auto o = std::make_shared<Options>();
  CLI::App* c =
      app->add_subcommand("tokenizer", "learn a byte-level BPE, or encode a text with it");
  c->require_subcommand(1);
  CLI::App* train = c->add_subcommand("train", "learn a vocabulary from a text");
  train->add_option("text", o->text, "a file of plain text")->required();
  train->add_option("--vocab", o->vocab, "tokens, the 256 bytes among them (default 4096)")
      ->check(WholeNumber(256));
  train
      ->add_option(
          "--special", o->special,
          "a text that is one token, such as '<|endoftext|>', for train.data.document_token; "
          "may be given several times")
      ->allow_extra_args(false);
  train->add_option("--out", o->out, "the tokenizer.json to write")->required();
  train->add_flag("--quiet", o->quiet, "no progress, no summary");
  train->footer(
      "Example:\n  tessera tokenizer train build/data/english.txt --vocab 4096 --out bpe.json\n"
      "  tessera train quickstart model.vocab=bpe.json");
  train->callback([=] { *code = Train(*o); });
  CLI::App* encode = c->add_subcommand("encode", "write a text as a file of token ids");
  encode->add_option("text", o->text, "a file of plain text")->required();
  encode->add_option("--tokenizer", o->tokenizer, "bytes, or a tokenizer.json");
  encode->add_option("--out", o->out, "the .bin to write, with llm.c's header")->required();
  encode->footer(
      "Example:\n  tessera tokenizer encode build/data/english.txt --tokenizer bpe.json --out "
      "english.bin\n  tessera train quickstart model.vocab=bpe.json 'train.data={tokens: "
      "english.bin}'");
  encode->callback([=] { *code = Encode(*o); });
}

}  // namespace tessera
