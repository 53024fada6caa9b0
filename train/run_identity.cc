#include "train/run_identity.h"

#include <algorithm>
#include <map>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "config/config.h"
#include "core/status.h"
#include "io/files.h"
#include "io/json.h"

namespace tessera {
namespace {

// Every value of a config by its path, such as model.layers[0].gla.heads.
void Flatten(const ConfigNode& node, const std::string& path,
             std::map<std::string, std::string>* values) {
  const auto below = [&](const std::string& name) {
    return path.empty() || name[0] == '[' ? path + name : path + "." + name;
  };
  if (node.kind == ConfigNode::Kind::kMap && !node.entries.empty()) {
    for (const ConfigNode::Entry& e : node.entries) Flatten(e.value, below(e.key), values);
  } else if (node.kind == ConfigNode::Kind::kList && !node.items.empty()) {
    for (size_t i = 0; i < node.items.size(); ++i)
      Flatten(node.items[i], below(absl::StrCat("[", i, "]")), values);
  } else {
    (*values)[path] = PrintYamlFlow(node);
  }
}

// A config that an earlier run wrote, with the defaults of keys that it does not name.
absl::StatusOr<std::map<std::string, std::string>> ValuesOf(const std::string& config,
                                                            const std::string& where) {
  TESSERA_ASSIGN_OR_RETURN(const RunConfig read, ParseRunConfig(config, where, {}));
  TESSERA_ASSIGN_OR_RETURN(const ConfigNode tree, ParseYaml(PrintRunConfig(read), where));
  std::map<std::string, std::string> values;
  Flatten(tree, "", &values);
  return values;
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

std::vector<Difference> Differences(const std::map<std::string, std::string>& was,
                                    const std::map<std::string, std::string>& is,
                                    const RunIdentity& old, const RunIdentity& now) {
  std::vector<Difference> all;
  const bool data_known = !old.data.hash.empty(), data_same = old.data == now.data;
  const bool tokenizer_known = !old.tokenizer_hash.empty(),
             tokenizer_same = old.tokenizer_hash == now.tokenizer_hash;
  const auto is_same_file = [&](const std::string& key) {
    if (key == "model.vocab") return tokenizer_known && tokenizer_same;
    const bool path =
        key == "train.data.text" || key == "train.data.jsonl" || key == "train.data.tokens";
    return path && data_known && data_same && was.count(key) == is.count(key);
  };
  const auto add = [&](const std::string& key) {
    const auto a = was.find(key), b = is.find(key);
    if (a != was.end() && b != is.end() && a->second == b->second) return;
    if (is_same_file(key)) return;
    all.push_back({key, absl::StrCat(key, ": ", a == was.end() ? "not set" : a->second, " -> ",
                                     b == is.end() ? "not set" : b->second)});
  };
  for (const auto& [key, value] : was) add(key);
  for (const auto& [key, value] : is)
    if (was.count(key) == 0) add(key);
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
  return {{"config", config},
          {"data", {{"bytes", data.bytes}, {"xxh3_128", data.hash}}},
          {"tokenizer", tokenizer_hash}};
}

absl::StatusOr<RunIdentity> RunIdentity::FromJson(const nlohmann::json& json,
                                                  absl::string_view where) {
  RunIdentity identity;
  TESSERA_ASSIGN_OR_RETURN(identity.config, GetString(json, "config", where));
  TESSERA_ASSIGN_OR_RETURN(const nlohmann::json* data, GetObject(json, "data", where));
  TESSERA_ASSIGN_OR_RETURN(identity.data.bytes, GetInteger(*data, "bytes", 0, INT64_MAX, where));
  TESSERA_ASSIGN_OR_RETURN(identity.data.hash, GetString(*data, "xxh3_128", where));
  TESSERA_ASSIGN_OR_RETURN(identity.tokenizer_hash, GetString(json, "tokenizer", where));
  return identity;
}

absl::StatusOr<RunIdentity> IdentityOf(const RunConfig& config, const Tokenizer& tokenizer) {
  TESSERA_ASSIGN_OR_RETURN(const MappedFile data,
                           MappedFile::Open(config.train.data.Config().path));
  const std::string text = tokenizer.Serialize();
  return RunIdentity{.config = PrintRunConfig(config),
                     .data = Fingerprint(data.bytes()),
                     .tokenizer_hash = text.empty() ? "bytes" : Fingerprint(text).hash};
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
  for (const Difference& d : Differences(was, is, old, now)) {
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
