#include "train/bpe.h"

#include <algorithm>
#include <functional>
#include <queue>
#include <tuple>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "core/check.h"
#include "core/status.h"
#include "train/bpe_file.h"
#include "train/json.h"
#include "train/split_pattern.h"

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

class BpeTokenizer final : public Tokenizer {
 public:
  BpeTokenizer(BpeModel model, SplitPattern pattern, MergeTable merges,
               std::vector<int32_t> byte_ids)
      : model_(std::move(model)),
        pattern_(std::move(pattern)),
        merges_(std::move(merges)),
        byte_ids_(std::move(byte_ids)) {}

  absl::StatusOr<std::vector<int32_t>> Encode(absl::string_view text) const override {
    constexpr size_t kMaxKept_bytes = 64;  // a longer piece hardly comes again
    std::vector<int32_t> ids, piece_ids;
    absl::flat_hash_map<absl::string_view, std::pair<int64_t, int64_t>> seen;  // piece -> its ids
    PieceMerger merger(merges_);
    TESSERA_RETURN_IF_ERROR(pattern_.Split(text, [&](absl::string_view piece) {
      const auto found = seen.find(piece);
      const int64_t begin = static_cast<int64_t>(ids.size());
      if (found != seen.end()) {
        const auto [from, count] = found->second;
        for (int64_t i = 0; i < count; ++i) ids.push_back(ids[from + i]);
        return;
      }
      piece_ids.clear();
      for (const char c : piece) piece_ids.push_back(byte_ids_[static_cast<uint8_t>(c)]);
      merger.Run(piece_ids);
      ids.insert(ids.end(), piece_ids.begin(), piece_ids.end());
      if (piece.size() <= kMaxKept_bytes)
        seen[piece] = {begin, static_cast<int64_t>(piece_ids.size())};
    }));
    return ids;
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
  SplitPattern pattern_;
  MergeTable merges_;
  std::vector<int32_t> byte_ids_;  // [256]
};

absl::Status Bad(absl::string_view what) { return absl::InvalidArgumentError(what); }

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> MakeBpeTokenizer(BpeModel model) {
  absl::flat_hash_map<absl::string_view, int32_t> id_of;
  for (size_t i = 0; i < model.tokens.size(); ++i)
    if (!id_of.emplace(model.tokens[i], static_cast<int32_t>(i)).second)
      return Bad(absl::StrCat("the token ", Quote(model.tokens[i]), " has two ids, ",
                              id_of[model.tokens[i]], " and ", i));
  std::vector<int32_t> byte_ids(256);
  for (int b = 0; b < 256; ++b) {
    const char byte = static_cast<char>(b);
    const auto found = id_of.find(absl::string_view(&byte, 1));
    if (found == id_of.end())
      return Bad(absl::StrCat("no token for the byte ", b, "; a byte-level BPE has all 256"));
    byte_ids[static_cast<size_t>(b)] = found->second;
  }
  MergeTable merges;
  std::vector<bool> made(model.tokens.size());
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
