#include "data/bpe_file.h"

#include <array>
#include <nlohmann/json.hpp>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "core/check.h"
#include "core/status.h"
#include "data/split_pattern.h"
#include "io/files.h"
#include "io/json.h"

namespace tessera {
namespace {

using Json = nlohmann::json;

absl::Status Bad(absl::string_view where, absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat(where, ": ", what));
}

// GPT-2's spelling of bytes as printable characters (Radford et al. 2019): a byte that Latin-1
// prints is that character, the other 68 are U+0100 + n in their order.
struct ByteSpelling {
  std::array<std::string, 256> spelt;
  absl::flat_hash_map<std::string, char> byte_of;

  ByteSpelling() {
    int others = 0;
    for (int b = 0; b < 256; ++b) {
      const bool prints = (b >= 0x21 && b <= 0x7e) || (b >= 0xa1 && b <= 0xac) || b >= 0xae;
      const int c = prints ? b : 0x100 + others++;
      std::string& s = spelt[static_cast<size_t>(b)];
      if (c < 0x80) {
        s = std::string(1, static_cast<char>(c));
      } else {  // below U+0800, so two bytes of UTF-8
        s = {static_cast<char>(0xc0 | (c >> 6)), static_cast<char>(0x80 | (c & 0x3f))};
      }
      byte_of[s] = static_cast<char>(b);
    }
  }
};

const ByteSpelling& Spelling() {
  static const ByteSpelling* const spelling = new ByteSpelling;
  return *spelling;
}

std::string Spell(absl::string_view bytes) {
  std::string text;
  for (const char c : bytes) text += Spelling().spelt[static_cast<uint8_t>(c)];
  return text;
}

absl::StatusOr<std::string> Unspell(absl::string_view text, absl::string_view where) {
  std::string bytes;
  for (size_t i = 0; i < text.size();) {
    const size_t length = static_cast<uint8_t>(text[i]) < 0x80 ? 1 : 2;
    const auto found = Spelling().byte_of.find(std::string(text.substr(i, length)));
    if (found == Spelling().byte_of.end())
      return Bad(where, absl::StrCat("the token ", Quote(text),
                                     " holds a character that stands for no byte; only byte-level "
                                     "BPE can be read"));
    bytes.push_back(found->second);
    i += length;
  }
  if (bytes.empty()) return Bad(where, "a token is empty");
  return bytes;
}

// A part of the file that must be as if absent.
absl::Status CheckUnused(const Json& object, absl::string_view key, absl::string_view where) {
  const auto found = object.find(std::string(key));
  if (found == object.end() || found->is_null() || *found == false || *found == "" ||
      (found->is_array() && found->empty()))
    return absl::OkStatus();
  return Bad(where, absl::StrCat("'", key, "' is ", tessera::Describe(*found),
                                 "; only byte-level BPE without it can be read"));
}

absl::Status CheckType(const Json& object, absl::string_view type, absl::string_view where) {
  TESSERA_ASSIGN_OR_RETURN(const std::string got, GetString(object, "type", where));
  if (got != type)
    return Bad(where, absl::StrCat("type ", Quote(got), "; '", type, "' is expected"));
  return absl::OkStatus();
}

absl::StatusOr<std::string> PatternOfSplit(const Json& split, absl::string_view where) {
  TESSERA_RETURN_IF_ERROR(CheckType(split, "Split", where));
  TESSERA_RETURN_IF_ERROR(CheckUnused(split, "invert", where));
  TESSERA_ASSIGN_OR_RETURN(const std::string behavior, GetString(split, "behavior", where));
  if (behavior != "Isolated")
    return Bad(where, absl::StrCat("behavior ", Quote(behavior), "; 'Isolated' is expected"));
  TESSERA_ASSIGN_OR_RETURN(const Json* pattern, GetObject(split, "pattern", where));
  TESSERA_RETURN_IF_ERROR(CheckKeys(*pattern, {"Regex"}, where));
  return GetString(*pattern, "Regex", where);
}

// Split + ByteLevel(use_regex = false), or ByteLevel alone, which stands for GPT-2's pattern.
absl::StatusOr<std::string> ReadPattern(const Json& file, absl::string_view file_name) {
  const std::string where = absl::StrCat(file_name, ", pre_tokenizer");
  TESSERA_ASSIGN_OR_RETURN(const Json* outer, GetObject(file, "pre_tokenizer", file_name));
  TESSERA_ASSIGN_OR_RETURN(const std::string type, GetString(*outer, "type", where));
  const Json* byte_level = outer;
  std::string pattern = kGpt2SplitPattern;
  if (type == "Sequence") {
    TESSERA_ASSIGN_OR_RETURN(const Json* parts, GetArray(*outer, "pretokenizers", where));
    if (parts->size() != 2)
      return Bad(where, absl::StrCat("a sequence of ", parts->size(),
                                     " parts; Split, then ByteLevel is expected"));
    TESSERA_ASSIGN_OR_RETURN(pattern, PatternOfSplit((*parts)[0], where));
    byte_level = &(*parts)[1];
  }
  TESSERA_RETURN_IF_ERROR(CheckType(*byte_level, "ByteLevel", where));
  TESSERA_RETURN_IF_ERROR(CheckUnused(*byte_level, "add_prefix_space", where));
  const auto use_regex = byte_level->find("use_regex");
  const bool own_pattern = use_regex == byte_level->end() || *use_regex != false;
  if (own_pattern == (type == "Sequence"))
    return Bad(where, "ByteLevel must split ('use_regex') exactly when no Split stands before it");
  return pattern;
}

absl::StatusOr<bool> ReadFlag(const Json& object, absl::string_view key, absl::string_view where) {
  const auto found = object.find(std::string(key));
  if (found == object.end()) return false;
  if (found->is_boolean()) return *found == true;
  return Bad(where, absl::StrCat("'", key, "' is ", tessera::Describe(*found),
                                 "; true or false is expected"));
}

absl::StatusOr<std::vector<AddedToken>> ReadAdded(const Json& file, absl::string_view file_name) {
  std::vector<AddedToken> added;
  const auto found = file.find("added_tokens");
  if (found == file.end() || found->is_null()) return added;
  TESSERA_ASSIGN_OR_RETURN(const Json* list, GetArray(file, "added_tokens", file_name));
  for (const Json& entry : *list) {
    const std::string where = absl::StrCat(file_name, ", added token ", added.size());
    AddedToken token;
    TESSERA_ASSIGN_OR_RETURN(token.text, GetString(entry, "content", where));
    TESSERA_ASSIGN_OR_RETURN(const int64_t id, GetInteger(entry, "id", 0, INT32_MAX, where));
    token.id = static_cast<int32_t>(id);
    TESSERA_ASSIGN_OR_RETURN(token.special, ReadFlag(entry, "special", where));
    TESSERA_ASSIGN_OR_RETURN(token.normalized, ReadFlag(entry, "normalized", where));
    for (const absl::string_view key : {"single_word", "lstrip", "rstrip"})
      TESSERA_RETURN_IF_ERROR(CheckUnused(entry, key, where));
    added.push_back(std::move(token));
  }
  return added;
}

// The model's vocabulary and the added tokens, which may be in it too, under their own text.
absl::StatusOr<std::vector<std::string>> ReadVocab(const Json& model,
                                                   const std::vector<AddedToken>& added,
                                                   absl::string_view where) {
  TESSERA_ASSIGN_OR_RETURN(const Json* vocab, GetObject(model, "vocab", where));
  absl::flat_hash_map<std::string, int32_t> added_ids;
  size_t beyond = 0;
  for (const AddedToken& token : added) {
    if (!added_ids.emplace(token.text, token.id).second)
      return Bad(where, absl::StrCat("the added token ", Quote(token.text), " is given twice"));
    if (!vocab->contains(token.text)) ++beyond;
  }
  std::vector<std::string> tokens(vocab->size() + beyond);
  for (const AddedToken& token : added) {
    if (token.text.empty() || static_cast<size_t>(token.id) >= tokens.size() ||
        !tokens[static_cast<size_t>(token.id)].empty())
      return Bad(where, absl::StrCat("the added token ", Quote(token.text), " has the id ",
                                     token.id, "; a text, and an id of its own below ",
                                     tokens.size(), " are expected"));
    tokens[static_cast<size_t>(token.id)] = token.text;
  }
  for (const auto& [spelt, id_value] : vocab->items()) {
    TESSERA_ASSIGN_OR_RETURN(
        const int64_t id, ToInteger(id_value, absl::StrCat("the id of the token ", Quote(spelt)), 0,
                                    static_cast<int64_t>(tokens.size()) - 1, where));
    if (const auto a = added_ids.find(spelt); a != added_ids.end()) {
      if (a->second == id) continue;
      return Bad(where, absl::StrCat("the token ", Quote(spelt), " has two ids, ", id,
                                     " and, added, ", a->second));
    }
    TESSERA_ASSIGN_OR_RETURN(std::string bytes, Unspell(spelt, where));
    std::string& slot = tokens[static_cast<size_t>(id)];
    if (!slot.empty())
      return Bad(where, absl::StrCat("the id ", id, " belongs to two tokens, ", Quote(Spell(slot)),
                                     " and ", Quote(spelt)));
    slot = std::move(bytes);
  }
  return tokens;  // as many ids as slots, none twice: every slot is filled
}

// ["a", "b"], or "a b" in older files.
absl::StatusOr<std::pair<std::string, std::string>> ReadMerge(const Json& merge,
                                                              absl::string_view where) {
  if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string())
    return std::make_pair(merge[0].get<std::string>(), merge[1].get<std::string>());
  if (merge.is_string()) {
    const std::string& text = merge.get_ref<const std::string&>();
    const size_t space = text.find(' ');
    if (space != text.npos && text.find(' ', space + 1) == text.npos)
      return std::make_pair(text.substr(0, space), text.substr(space + 1));
  }
  return Bad(where, absl::StrCat("is ", tessera::Describe(merge), "; two tokens are expected"));
}

absl::Status ReadMerges(const Json& json, absl::string_view where, BpeModel& model) {
  TESSERA_ASSIGN_OR_RETURN(const Json* merges, GetArray(json, "merges", where));
  absl::flat_hash_map<std::string, int32_t> id_of;  // by spelling
  std::vector<bool> is_added(model.tokens.size());
  for (const AddedToken& token : model.added) {
    is_added[static_cast<size_t>(token.id)] = true;
    id_of[token.text] = token.id;
  }
  for (size_t id = 0; id < model.tokens.size(); ++id)
    if (!is_added[id]) id_of[Spell(model.tokens[id])] = static_cast<int32_t>(id);
  for (const Json& merge : *merges) {
    const std::string place = absl::StrCat(where, ", merge ", model.merges.size());
    TESSERA_ASSIGN_OR_RETURN(const auto pair, ReadMerge(merge, place));
    for (const std::string& side : {pair.first, pair.second})
      if (!id_of.contains(side))
        return Bad(place, absl::StrCat("the token ", Quote(side), " is not in the vocabulary"));
    model.merges.push_back({id_of[pair.first], id_of[pair.second]});
  }
  return absl::OkStatus();
}

}  // namespace

std::string WriteBpeJson(const BpeModel& model) {
  using Ordered = nlohmann::ordered_json;
  Ordered vocab = Ordered::object(), merges = Ordered::array();
  // Straight into the map: ordered_json would search all keys before it adds one.
  auto& entries = vocab.get_ref<Ordered::object_t&>();
  entries.reserve(model.tokens.size());
  std::vector<bool> is_added(model.tokens.size());
  Ordered added = Ordered::array();
  for (const AddedToken& token : model.added) {
    is_added[static_cast<size_t>(token.id)] = true;
    added.push_back({{"id", token.id},
                     {"content", token.text},
                     {"single_word", false},
                     {"lstrip", false},
                     {"rstrip", false},
                     {"normalized", token.normalized},
                     {"special", token.special}});
  }
  for (size_t id = 0; id < model.tokens.size(); ++id)
    entries.Container::emplace_back(is_added[id] ? model.tokens[id] : Spell(model.tokens[id]), id);
  for (const auto& [left, right] : model.merges)
    merges.push_back({Spell(model.tokens[static_cast<size_t>(left)]),
                      Spell(model.tokens[static_cast<size_t>(right)])});
  const Ordered split = {{"type", "Split"},
                         {"pattern", {{"Regex", model.pattern}}},
                         {"behavior", "Isolated"},
                         {"invert", false}};
  const Ordered byte_level = {{"type", "ByteLevel"},
                              {"add_prefix_space", false},
                              {"trim_offsets", true},
                              {"use_regex", false}};
  const Ordered file = {
      {"version", "1.0"},
      {"truncation", nullptr},
      {"padding", nullptr},
      {"added_tokens", std::move(added)},
      {"normalizer", nullptr},
      {"pre_tokenizer",
       {{"type", "Sequence"}, {"pretokenizers", Ordered::array({split, byte_level})}}},
      {"post_processor", nullptr},
      {"decoder", byte_level},
      {"model",
       {{"type", "BPE"},
        {"dropout", nullptr},
        {"unk_token", nullptr},
        {"continuing_subword_prefix", nullptr},
        {"end_of_word_suffix", nullptr},
        {"fuse_unk", false},
        {"byte_fallback", false},
        {"ignore_merges", false},
        {"vocab", std::move(vocab)},
        {"merges", std::move(merges)}}}};
  return file.dump(1) + "\n";
}

absl::StatusOr<BpeModel> ReadBpeJson(absl::string_view json, absl::string_view where) {
  TESSERA_ASSIGN_OR_RETURN(const Json file, ParseJson(json, where));
  if (!file.is_object()) return Bad(where, "not a tokenizer.json: an object is expected");
  for (const absl::string_view key : {"normalizer", "truncation", "padding"})
    TESSERA_RETURN_IF_ERROR(CheckUnused(file, key, where));
  const std::string in_model = absl::StrCat(where, ", model");
  TESSERA_ASSIGN_OR_RETURN(const Json* model_json, GetObject(file, "model", where));
  TESSERA_RETURN_IF_ERROR(CheckType(*model_json, "BPE", in_model));
  for (const absl::string_view key : {"dropout", "unk_token", "continuing_subword_prefix",
                                      "end_of_word_suffix", "byte_fallback", "ignore_merges"})
    TESSERA_RETURN_IF_ERROR(CheckUnused(*model_json, key, in_model));
  BpeModel model;
  TESSERA_ASSIGN_OR_RETURN(model.pattern, ReadPattern(file, where));
  TESSERA_ASSIGN_OR_RETURN(model.added, ReadAdded(file, where));
  TESSERA_ASSIGN_OR_RETURN(model.tokens, ReadVocab(*model_json, model.added, in_model));
  TESSERA_RETURN_IF_ERROR(ReadMerges(*model_json, in_model, model));
  if (const auto made = MakeBpeTokenizer(model); !made.ok())
    return Bad(where, made.status().message());
  return model;
}

absl::StatusOr<BpeModel> ReadBpeFile(const std::string& path) {
  constexpr int64_t kMaxTokenizer_bytes = int64_t{256} << 20;
  TESSERA_ASSIGN_OR_RETURN(const std::string json, ReadFile(path, kMaxTokenizer_bytes));
  return ReadBpeJson(json, path);
}

}  // namespace tessera
