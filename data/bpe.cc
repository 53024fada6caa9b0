#include "data/bpe.h"

#include <algorithm>
#include <functional>
#include <queue>
#include <tuple>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "core/check.h"
#include "core/status.h"
#include "data/bpe_file.h"
#include "data/split_pattern.h"
#include "io/json.h"

namespace tessera {
namespace {

struct Merge {
  int32_t rank, result;
};
using Pair = std::pair<int32_t, int32_t>;
using MergeTable = absl::flat_hash_map<Pair, Merge>;

// Joins the pairs of one piece in the order of their ranks. The symbols are a linked list, the
// candidates a heap in which those that an earlier join took away are noticed when they come up, so
// that a piece of n bytes costs n log n.
class PieceMerger {
 public:
  explicit PieceMerger(const MergeTable& merges) : merges_(merges) {}

  // `ids` holds one token a byte and is left as the tokens of the piece.
  void Run(std::vector<int32_t>& ids) {
    const int64_t n = static_cast<int64_t>(ids.size());
    before_.resize(ids.size());
    after_.resize(ids.size());
    for (int64_t i = 0; i < n; ++i) {
      before_[i] = i - 1;
      after_[i] = i + 1 < n ? i + 1 : -1;
    }
    for (int64_t i = 0; i + 1 < n; ++i) Offer(ids, i);
    while (!heap_.empty()) {
      const Candidate c = heap_.top();
      heap_.pop();
      if (ids[c.at] != c.left || after_[c.at] < 0 || ids[after_[c.at]] != c.right) continue;
      Join(ids, c);
    }
    ids.erase(std::remove(ids.begin(), ids.end(), kGone), ids.end());
  }

 private:
  static constexpr int32_t kGone = -1;
  struct Candidate {
    int32_t rank;
    int64_t at;
    int32_t left, right, result;
    bool operator>(const Candidate& o) const { return std::tie(rank, at) > std::tie(o.rank, o.at); }
  };

  void Offer(const std::vector<int32_t>& ids, int64_t at) {
    if (at < 0 || after_[at] < 0) return;
    const Pair pair(ids[at], ids[after_[at]]);
    const auto found = merges_.find(pair);
    if (found == merges_.end()) return;
    heap_.push({found->second.rank, at, pair.first, pair.second, found->second.result});
  }

  void Join(std::vector<int32_t>& ids, const Candidate& c) {
    const int64_t gone = after_[c.at];
    ids[c.at] = c.result;
    ids[gone] = kGone;
    after_[c.at] = after_[gone];
    if (after_[gone] >= 0) before_[after_[gone]] = c.at;
    Offer(ids, before_[c.at]);
    Offer(ids, c.at);
  }

  const MergeTable& merges_;
  std::vector<int64_t> before_, after_;
  std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>> heap_;
};

// Encodes one text. The ids of short pieces are kept, since most pieces come again and again, up to
// a bound, so that a text of any length takes as much memory.
class Encoder {
 public:
  Encoder(const MergeTable& merges, const std::vector<int32_t>& byte_ids, const Tokenizer::Put& put)
      : byte_ids_(byte_ids), put_(put), merger_(merges) {}

  bool Piece(absl::string_view piece) {
    bytes_ += static_cast<int64_t>(piece.size());
    const auto found = seen_.find(piece);
    if (found != seen_.end()) {
      const auto [from, count] = found->second;
      const auto begin = kept_.begin() + from;
      ids_.insert(ids_.end(), begin, begin + count);
      return FlushIfFull();
    }
    piece_ids_.clear();
    for (const char c : piece) piece_ids_.push_back(byte_ids_[static_cast<uint8_t>(c)]);
    merger_.Run(piece_ids_);
    ids_.insert(ids_.end(), piece_ids_.begin(), piece_ids_.end());
    if (piece.size() <= kMaxKept_bytes && seen_.size() < kMaxKept) {
      seen_[piece] = {static_cast<int64_t>(kept_.size()), static_cast<int64_t>(piece_ids_.size())};
      kept_.insert(kept_.end(), piece_ids_.begin(), piece_ids_.end());
    }
    return FlushIfFull();
  }
  bool Added(absl::string_view text, int32_t id) {
    bytes_ += static_cast<int64_t>(text.size());
    ids_.push_back(id);
    return FlushIfFull();
  }
  bool Flush() {
    const bool go = ids_.empty() || put_(ids_, bytes_);
    ids_.clear();
    bytes_ = 0;
    return go;
  }

 private:
  static constexpr size_t kMaxKept_bytes = 64;  // a longer piece hardly comes again
  static constexpr size_t kMaxKept = 1 << 18;
  static constexpr size_t kFull = 1 << 12;
  bool FlushIfFull() { return ids_.size() < kFull || Flush(); }

  const std::vector<int32_t>& byte_ids_;
  const Tokenizer::Put& put_;
  PieceMerger merger_;
  std::vector<int32_t> ids_, piece_ids_, kept_;
  int64_t bytes_ = 0;                                                         // that ids_ stand for
  absl::flat_hash_map<absl::string_view, std::pair<int64_t, int64_t>> seen_;  // place in kept_
};

class BpeTokenizer final : public Tokenizer {
 public:
  BpeTokenizer(BpeModel model, SplitPattern pattern, MergeTable merges,
               std::vector<int32_t> byte_ids)
      : model_(std::move(model)),
        added_(model_.added),
        pattern_(std::move(pattern)),
        merges_(std::move(merges)),
        byte_ids_(std::move(byte_ids)) {}

  absl::Status EncodeInto(absl::string_view text, const Put& put) const override {
    Encoder encoder(merges_, byte_ids_, put);
    absl::Status status;
    bool go = true;
    added_.Split(text, [&](absl::string_view part, int32_t id) {
      if (id >= 0) return go = encoder.Added(part, id);
      status =
          pattern_.Split(part, [&](absl::string_view piece) { return go = encoder.Piece(piece); });
      return go && status.ok();
    });
    if (go && status.ok()) encoder.Flush();
    return status;
  }

  absl::string_view TokenBytes(int32_t id) const override {
    TESSERA_CHECK(id >= 0 && id < vocab_size(), "token id %d of %ld", id, vocab_size());
    return model_.tokens[static_cast<size_t>(id)];
  }
  int64_t vocab_size() const override { return static_cast<int64_t>(model_.tokens.size()); }
  std::string Describe() const override {
    return absl::StrCat("byte-level BPE, ", vocab_size(), " tokens");
  }
  std::string Serialize() const override { return WriteBpeJson(model_); }

 private:
  BpeModel model_;
  AddedTokens added_;
  SplitPattern pattern_;
  MergeTable merges_;
  std::vector<int32_t> byte_ids_;  // [256]
};

absl::Status Bad(absl::string_view what) { return absl::InvalidArgumentError(what); }

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> MakeBpeTokenizer(BpeModel model) {
  const auto text_of = [&](int32_t id) -> std::string& {
    return model.tokens[static_cast<size_t>(id)];
  };
  std::vector<bool> made(model.tokens.size());  // by the bytes, by a merge, or added
  absl::flat_hash_set<absl::string_view> added_texts;
  for (const AddedToken& t : model.added) {
    if (t.id < 0 || static_cast<size_t>(t.id) >= model.tokens.size() || t.text != text_of(t.id))
      return Bad(absl::StrCat("the added token ", Quote(t.text), " is not the one with id ", t.id));
    if (ValidUtf8Prefix(t.text) < static_cast<int64_t>(t.text.size()))
      return Bad(absl::StrCat("the added token ", Quote(t.text), " is not valid UTF-8"));
    if (t.text.empty()) return Bad(absl::StrCat("the added token with id ", t.id, " is empty"));
    if (!added_texts.insert(t.text).second)
      return Bad(absl::StrCat("the added token ", Quote(t.text), " is given twice"));
    made[static_cast<size_t>(t.id)] = true;
  }
  // What an added token spells can also be that of a merge, with an id of its own.
  absl::flat_hash_map<absl::string_view, int32_t> id_of;
  for (size_t i = 0; i < model.tokens.size(); ++i)
    if (!made[i] && !id_of.emplace(model.tokens[i], static_cast<int32_t>(i)).second)
      return Bad(absl::StrCat("the token ", Quote(model.tokens[i]), " has two ids, ",
                              id_of[model.tokens[i]], " and ", i));
  for (const AddedToken& t : model.added) id_of.emplace(text_of(t.id), t.id);
  std::vector<int32_t> byte_ids(256);
  for (int b = 0; b < 256; ++b) {
    const char byte = static_cast<char>(b);
    const auto found = id_of.find(absl::string_view(&byte, 1));
    if (found == id_of.end())
      return Bad(absl::StrCat("no token for the byte ", b, "; a byte-level BPE has all 256"));
    byte_ids[static_cast<size_t>(b)] = found->second;
  }
  MergeTable merges;
  for (const int32_t id : byte_ids) made[static_cast<size_t>(id)] = true;
  for (size_t rank = 0; rank < model.merges.size(); ++rank) {
    const auto [left, right] = model.merges[rank];
    const int64_t vocab = static_cast<int64_t>(model.tokens.size());
    if (left < 0 || left >= vocab || right < 0 || right >= vocab)
      return Bad(absl::StrCat("merge ", rank, " joins ids ", left, " and ", right,
                              " of a vocabulary of ", vocab));
    const std::string joined =
        model.tokens[static_cast<size_t>(left)] + model.tokens[static_cast<size_t>(right)];
    const auto found = id_of.find(joined);
    if (found == id_of.end())
      return Bad(absl::StrCat("merge ", rank, " makes ", Quote(joined), ", which is no token"));
    if (!merges.emplace(Pair(left, right), Merge{static_cast<int32_t>(rank), found->second}).second)
      return Bad(absl::StrCat("merge ", rank, " (", Quote(joined), ") is given twice"));
    made[static_cast<size_t>(found->second)] = true;
  }
  for (size_t id = 0; id < made.size(); ++id)
    if (!made[id])
      return Bad(
          absl::StrCat("no merge makes the token ", Quote(model.tokens[id]), " (id ", id, ")"));
  TESSERA_ASSIGN_OR_RETURN(SplitPattern pattern, SplitPattern::Compile(model.pattern));
  return std::make_unique<BpeTokenizer>(std::move(model), std::move(pattern), std::move(merges),
                                        std::move(byte_ids));
}

}  // namespace tessera
