#include <algorithm>
#include <queue>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "core/status.h"
#include "data/bpe.h"
#include "data/split_pattern.h"
#include "io/json.h"

namespace tessera {
namespace {

using Pair = std::pair<int32_t, int32_t>;

struct Word {
  std::vector<int32_t> ids;
  int64_t count = 0;  // how often the piece stands in the text
};

struct Candidate {
  int64_t count;
  Pair pair;
  // The top of the heap: the most frequent, of equals the lesser ids.
  bool operator<(const Candidate& o) const {
    return count != o.count ? count < o.count : pair > o.pair;
  }
};

// The pairs of all words with their counts, kept up to date merge by merge: a merge touches only
// the words that hold its pair. A heap entry whose count is no longer true is corrected when it
// comes up.
class PairCounts {
 public:
  explicit PairCounts(std::vector<Word> words) : words_(std::move(words)) {
    for (size_t w = 0; w < words_.size(); ++w) {
      const std::vector<int32_t>& ids = words_[w].ids;
      for (size_t i = 0; i + 1 < ids.size(); ++i) Add({ids[i], ids[i + 1]}, w);
    }
    for (const auto& [pair, entry] : pairs_) heap_.push({entry.count, pair});
  }

  // The most frequent pair; false when none occurs twice.
  bool Best(Pair& best) {
    while (!heap_.empty()) {
      const Candidate c = heap_.top();
      heap_.pop();
      const int64_t now = pairs_[c.pair].count;
      if (now != c.count) {
        if (now > 0 && now < c.count) heap_.push({now, c.pair});
        continue;
      }
      if (c.count < 2) return false;
      best = c.pair;
      return true;
    }
    return false;
  }

  void Join(Pair pair, int32_t result) {
    const std::vector<size_t> where = std::move(pairs_[pair].words);
    grown_.clear();
    for (const size_t w : where) JoinIn(w, pair, result);
    pairs_.erase(pair);
    std::sort(grown_.begin(), grown_.end());
    grown_.erase(std::unique(grown_.begin(), grown_.end()), grown_.end());
    for (const Pair& p : grown_)
      if (const int64_t count = pairs_[p].count; count > 0) heap_.push({count, p});
  }

 private:
  struct Entry {
    int64_t count = 0;
    std::vector<size_t> words;  // those that hold the pair, perhaps some that no longer do
  };

  // Notes that word `w` holds a pair that it did not hold before.
  void Add(Pair pair, size_t w) {
    Entry& entry = pairs_[pair];
    entry.count += words_[w].count;
    if (entry.words.empty() || entry.words.back() != w) entry.words.push_back(w);
  }

  void JoinIn(size_t w, Pair pair, int32_t result) {
    std::vector<int32_t>& ids = words_[w].ids;
    const int64_t count = words_[w].count;
    for (size_t i = 0; i + 1 < ids.size(); ++i) pairs_[{ids[i], ids[i + 1]}].count -= count;
    size_t to = 0;
    for (size_t i = 0; i < ids.size(); ++to) {
      const bool joined = i + 1 < ids.size() && ids[i] == pair.first && ids[i + 1] == pair.second;
      ids[to] = joined ? result : ids[i];
      i += joined ? 2 : 1;
    }
    ids.resize(to);
    for (size_t i = 0; i + 1 < ids.size(); ++i) {
      const Pair now(ids[i], ids[i + 1]);
      if (now.first == result || now.second == result) {
        Add(now, w);
        grown_.push_back(now);
      } else {
        pairs_[now].count += count;
      }
    }
  }

  std::vector<Word> words_;
  absl::flat_hash_map<Pair, Entry> pairs_;
  std::vector<Pair> grown_;
  std::priority_queue<Candidate> heap_;
};

// The different pieces of the text in the order in which they first come. A piece is cut into runs
// of a bounded length, so that a text without any space cannot make a merge cost its whole length.
absl::StatusOr<std::vector<Word>> CountPieces(absl::string_view text, const AddedTokens& special) {
  constexpr size_t kMaxRun_bytes = 256;
  TESSERA_ASSIGN_OR_RETURN(const SplitPattern pattern, SplitPattern::Compile(kDefaultSplitPattern));
  std::vector<Word> words;
  absl::flat_hash_map<absl::string_view, size_t> index;
  const auto count = [&](absl::string_view piece) {
    for (; !piece.empty(); piece.remove_prefix(std::min(piece.size(), kMaxRun_bytes))) {
      const absl::string_view run = piece.substr(0, kMaxRun_bytes);
      const auto [entry, is_new] = index.emplace(run, words.size());
      if (is_new) {
        words.emplace_back();
        for (const char c : run) words.back().ids.push_back(static_cast<uint8_t>(c));
      }
      ++words[entry->second].count;
    }
    return true;
  };
  absl::Status status;
  special.Split(text, [&](absl::string_view part, int32_t id) {
    if (id < 0) status = pattern.Split(part, count);
    return status.ok();
  });
  TESSERA_RETURN_IF_ERROR(status);
  return words;
}

absl::Status CheckSpecial(const std::vector<std::string>& special) {
  absl::flat_hash_set<std::string> seen;
  for (const std::string& text : special) {
    if (text.size() < 2 || ValidUtf8Prefix(text) != static_cast<int64_t>(text.size()))
      return absl::InvalidArgumentError(absl::StrCat("the special token ", Quote(text),
                                                     " must be valid UTF-8 of at least two bytes"));
    if (!seen.insert(text).second)
      return absl::InvalidArgumentError(
          absl::StrCat("the special token ", Quote(text), " is given twice"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<BpeModel> TrainBpe(absl::string_view text, int64_t vocab_size,
                                  const BpeProgress& progress,
                                  const std::vector<std::string>& special) {
  constexpr int64_t kMaxVocab = int64_t{1} << 20;
  const int64_t added = static_cast<int64_t>(special.size()), least = 256 + added;
  if (vocab_size < least || vocab_size > kMaxVocab)
    return absl::InvalidArgumentError(
        absl::StrCat("a vocabulary of ", vocab_size, " tokens; from ", least, " (the bytes",
                     added > 0 ? absl::StrCat(" and ", added, " special tokens") : "", ") to ",
                     kMaxVocab, " are possible"));
  TESSERA_RETURN_IF_ERROR(CheckSpecial(special));
  BpeModel model{.pattern = kDefaultSplitPattern};
  for (const std::string& s : special)
    model.added.push_back(
        {.id = static_cast<int32_t>(vocab_size - added + (&s - special.data())), .text = s});
  vocab_size -= added;
  for (int b = 0; b < 256; ++b) model.tokens.push_back(std::string(1, static_cast<char>(b)));
  TESSERA_ASSIGN_OR_RETURN(std::vector<Word> words, CountPieces(text, AddedTokens(model.added)));
  PairCounts counts(std::move(words));
  absl::flat_hash_set<std::string> known(model.tokens.begin(), model.tokens.end());
  while (static_cast<int64_t>(model.tokens.size()) < vocab_size) {
    const int64_t learnt = static_cast<int64_t>(model.tokens.size());
    Pair pair;
    if (!counts.Best(pair))
      return absl::InvalidArgumentError(absl::StrCat(
          "the text (", text.size(), " bytes) gives ", learnt + added, " tokens, not ",
          vocab_size + added, ": no further pair occurs twice; give more text or ask for at most ",
          learnt + added, " tokens"));
    std::string joined = model.tokens[static_cast<size_t>(pair.first)] +
                         model.tokens[static_cast<size_t>(pair.second)];
    // "ab"+"c" after "a"+"bc": the same bytes are not made a second token.
    if (!known.insert(joined).second) continue;
    counts.Join(pair, static_cast<int32_t>(learnt));
    model.merges.push_back(pair);
    model.tokens.push_back(std::move(joined));
    if (progress && (learnt + 1) % 64 == 0) progress(learnt + 1, vocab_size);
  }
  if (progress) progress(vocab_size, vocab_size);
  model.tokens.insert(model.tokens.end(), special.begin(), special.end());
  return model;
}

}  // namespace tessera
