#include "train/run_identity.h"

#include <algorithm>
#include <map>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "config/flat_values.h"
#include "core/status.h"
#include "io/files.h"
#include "io/json.h"

namespace tessera {
namespace {

// A config that an earlier run wrote, with the defaults of keys that it does not name.
absl::StatusOr<std::map<std::string, std::string>> ValuesOf(const std::string& config,
                                                            const std::string& where) {
  TESSERA_ASSIGN_OR_RETURN(const RunConfig read, ParseRunConfig(config, where, {}));
  TESSERA_ASSIGN_OR_RETURN(const ConfigNode tree, ParseYaml(PrintRunConfig(read), where));
  return FlatValues(tree);
}

// Whether `key` is `part` or lies below it.
bool IsWithin(const std::string& key, const std::string& part) {
  return absl::StartsWith(key, part) &&
         (key.size() == part.size() || key[part.size()] == '.' || key[part.size()] == '[');
}

bool IsOneOf(const std::string& key, const std::vector<std::string>& parts) {
  return std::any_of(parts.begin(), parts.end(),
                     [&](const std::string& part) { return IsWithin(key, part); });
}

struct Difference {
  std::string key, text;
};

std::string Bytes(const Manifest::File& f) {
  return absl::StrCat(f.bytes, " bytes, hash ", f.hash.substr(0, 8));
}

std::vector<Difference> AllDifferences(const std::map<std::string, std::string>& was,
                                       const std::map<std::string, std::string>& is,
                                       const RunIdentity& old, const RunIdentity& now) {
  std::vector<Difference> all;
  const bool data_known = !old.data.hash.empty(), data_same = old.data == now.data;
  const bool tokenizer_known = !old.tokenizer_hash.empty(),
             tokenizer_same = old.tokenizer_hash == now.tokenizer_hash;
  const auto is_same_file = [&](const std::string& key) {
    // What the run goes on from is looked for by its hash (train/weights.h).
    if (key == "model.from") return old.base.needed;
    if (key == "model.vocab") return tokenizer_known && tokenizer_same;
    const bool path =
        key == "train.data.text" || key == "train.data.jsonl" || key == "train.data.tokens";
    return path && data_known && data_same && was.count(key) == is.count(key);
  };
  for (const std::string& key : Differences(was, is))
    if (!is_same_file(key)) all.push_back({key, Change(key, was, is)});
  if (data_known && !data_same)
    all.push_back({"train.data", absl::StrCat("train.data, what the file holds: ", Bytes(old.data),
                                              " -> ", Bytes(now.data))});
  if (tokenizer_known && !tokenizer_same)
    all.push_back({"model.vocab", absl::StrCat("model.vocab, the tokenizer: hash ",
                                               old.tokenizer_hash.substr(0, 8), " -> ",
                                               now.tokenizer_hash.substr(0, 8))});
  return all;
}

}  // namespace

nlohmann::json RunIdentity::ToJson() const {
  nlohmann::json json = {{"config", config},
                         {"data", {{"bytes", data.bytes}, {"xxh3_128", data.hash}}},
                         {"tokenizer", tokenizer_hash}};
  if (!base.weights.hash.empty())
    json["base"] = {{"checkpoint", base.checkpoint},
                    {"bytes", base.weights.bytes},
                    {"xxh3_128", base.weights.hash},
                    {"needed", base.needed ? 1 : 0}};
  return json;
}

absl::StatusOr<RunIdentity> RunIdentity::FromJson(const nlohmann::json& json,
                                                  absl::string_view where) {
  RunIdentity identity;
  TESSERA_ASSIGN_OR_RETURN(identity.config, GetString(json, "config", where));
  TESSERA_ASSIGN_OR_RETURN(const nlohmann::json* data, GetObject(json, "data", where));
  TESSERA_ASSIGN_OR_RETURN(identity.data.bytes, GetInteger(*data, "bytes", 0, INT64_MAX, where));
  TESSERA_ASSIGN_OR_RETURN(identity.data.hash, GetString(*data, "xxh3_128", where));
  TESSERA_ASSIGN_OR_RETURN(identity.tokenizer_hash, GetString(json, "tokenizer", where));
  if (json.find("base") == json.end()) return identity;
  BaseReference& base = identity.base;
  TESSERA_ASSIGN_OR_RETURN(const nlohmann::json* from, GetObject(json, "base", where));
  TESSERA_ASSIGN_OR_RETURN(base.checkpoint, GetString(*from, "checkpoint", where));
  TESSERA_ASSIGN_OR_RETURN(base.weights.bytes, GetInteger(*from, "bytes", 0, INT64_MAX, where));
  TESSERA_ASSIGN_OR_RETURN(base.weights.hash, GetString(*from, "xxh3_128", where));
  TESSERA_ASSIGN_OR_RETURN(const int64_t needed, GetInteger(*from, "needed", 0, 1, where));
  base.needed = needed == 1;
  return identity;
}

std::string HashOf(const Tokenizer& tokenizer) {
  const std::string text = tokenizer.Serialize();
  return text.empty() ? "bytes" : Fingerprint(text).hash;
}

absl::StatusOr<RunIdentity> IdentityOf(const RunConfig& config, const Tokenizer& tokenizer) {
  TESSERA_ASSIGN_OR_RETURN(const MappedFile data,
                           MappedFile::Open(config.train.data.Config().path));
  return RunIdentity{.config = PrintRunConfig(config),
                     .data = Fingerprint(data.bytes()),
                     .tokenizer_hash = HashOf(tokenizer)};
}

const std::vector<std::string>& KeysThatMayChange() {
  static const auto* const keys = new std::vector<std::string>{
      "train.steps",       "train.stop_at",    "train.threads", "train.eval_every",
      "train.eval_tokens", "train.save_every", "train.keep"};
  return *keys;
}

absl::StatusOr<std::vector<std::string>> CheckContinues(const RunIdentity& old,
                                                        const RunIdentity& now,
                                                        const std::vector<std::string>& overrides,
                                                        const std::string& where) {
  TESSERA_ASSIGN_OR_RETURN(const auto was, ValuesOf(old.config, where + ", its config"));
  TESSERA_ASSIGN_OR_RETURN(const auto is, ValuesOf(now.config, "the config"));
  std::vector<std::string> told, refused, keys;
  for (const Difference& d : AllDifferences(was, is, old, now)) {
    if (IsOneOf(d.key, KeysThatMayChange()) || IsOneOf(d.key, overrides)) {
      told.push_back(d.text);
    } else {
      refused.push_back(d.text);
      if (keys.empty() || keys.back() != d.key) keys.push_back(d.key);
    }
  }
  for (const std::string& o : overrides)
    if (std::none_of(was.begin(), was.end(), [&](const auto& v) { return IsWithin(v.first, o); }) &&
        std::none_of(is.begin(), is.end(), [&](const auto& v) { return IsWithin(v.first, o); }))
      return absl::InvalidArgumentError(
          absl::StrCat("--override ", o,
                       ": neither the run nor the config has this key; name one such as train.lr"));
  if (refused.empty()) return told;
  constexpr size_t kMost = 20;  // lines that a person reads
  const size_t hidden = refused.size() > kMost ? refused.size() - kMost : 0;
  refused.resize(refused.size() - hidden);
  keys.resize(std::min(keys.size(), size_t{3}));
  return absl::InvalidArgumentError(absl::StrCat(
      where, " was trained as something else (what it was -> what is asked for now):\n  ",
      absl::StrJoin(refused, "\n  "), hidden > 0 ? absl::StrCat("\n  and ", hidden, " more") : "",
      "\nstart another run, continue with ", where,
      "/config.yaml, or allow a change by naming its "
      "key: --override ",
      absl::StrJoin(keys, " --override "),
      "\n(these may change without it: ", absl::StrJoin(KeysThatMayChange(), ", "), ")"));
}

}  // namespace tessera
