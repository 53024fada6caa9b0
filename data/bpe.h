#ifndef TESSERA_DATA_BPE_H_
#define TESSERA_DATA_BPE_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "data/added_tokens.h"
#include "data/tokenizer.h"

namespace tessera {

// A byte-level byte-pair encoding (Sennrich et al. 2016, arXiv:1508.07909, over bytes as in GPT-2):
// the text is split into pieces, each piece is its bytes, and the pair of neighbours with the
// lowest merge rank is joined, leftmost first, until none is in the list.
struct BpeModel {
  std::string pattern;              // of SplitPattern
  std::vector<std::string> tokens;  // [vocab] bytes of each id; the 256 single bytes are among them
  std::vector<std::pair<int32_t, int32_t>> merges;  // by rank; each joins to a token of `tokens`
  std::vector<AddedToken> added;  // their texts are in `tokens` too, but no merge makes them
};

// Called now and then with the number of tokens learnt and wanted.
using BpeProgress = std::function<void(int64_t learnt, int64_t wanted)>;

// Learns vocab_size - 256 merges from `text`: each joins the pair that is now the most frequent
// (of equals, the one with the lesser ids; none that spells a token again). Ids 0..255 are the
// bytes, 256 + r the merge of rank r. Errors: a vocabulary below 256 or above 2^20, and a text in
// which no pair occurs twice before the vocabulary is full (the message says how many tokens it
// gives). The last ids are those of the `special` texts, from which nothing is learnt; each must be
// valid UTF-8, not empty, and given once.
absl::StatusOr<BpeModel> TrainBpe(absl::string_view text, int64_t vocab_size,
                                  const BpeProgress& progress = nullptr,
                                  const std::vector<std::string>& special = {});

// Errors: a pattern that does not compile, merges or tokens that contradict each other.
absl::StatusOr<std::unique_ptr<Tokenizer>> MakeBpeTokenizer(BpeModel model);

}  // namespace tessera

#endif  // TESSERA_DATA_BPE_H_
