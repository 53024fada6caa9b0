#include "tests/contract/block_traits.h"

#include <algorithm>
#include <cmath>
#include <span>

#include "core/check_error.h"

namespace tessera::testing {
namespace {

// A difference of results that are of size one: rounding in another order, or something seen.
constexpr double kRounding = 1e-5, kSeen = 1e-3;

double MaxDifference(std::span<const double> a, std::span<const double> b) {
  double most = 0;
  for (size_t i = 0; i < a.size(); ++i) most = std::max(most, std::fabs(a[i] - b[i]));
  return most;
}

// "" where what was seen is what was claimed.
std::string Judge(bool claimed, double seen, const std::string& exception) {
  if (claimed && seen < kSeen) return "it says that " + exception + ", and that does not happen\n";
  if (!claimed && seen > kRounding) return exception + ", and it does not say so\n";
  return "";
}

// The change of the results before and from a token on, all of which change.
struct Change {
  double before = 0, after = 0;
};
Change ChangeOfTokens(Subject& s, const Way& way) {
  const int64_t T = s.Fit(63), D = s.D(), at = T * 2 / 3;
  std::vector<double> x = InputOf(1, T, D);
  const Outcome was = RunBlock(s, x, 1, T, way);
  for (int64_t i = at * D; i < T * D; ++i) x[static_cast<size_t>(i)] += 1;
  const Outcome is = RunBlock(s, x, 1, T, way);
  const size_t split = static_cast<size_t>(at * D);
  const std::span a(was.y), b(is.y);
  return {MaxDifference(a.first(split), b.first(split)),
          MaxDifference(a.subspan(split), b.subspan(split))};
}

Way Training() { return {.gradients = true}; }

std::string Causality(Subject& s, const Traits& t) {
  const Change inference = ChangeOfTokens(s, {}), training = ChangeOfTokens(s, Training());
  std::string wrong;
  if (inference.after < kSeen) wrong += "the change of tokens changes nothing\n";
  wrong += Judge(t.causal == Causal::kNever, inference.before, "a token sees later ones");
  if (t.causal != Causal::kNever)
    wrong += Judge(t.causal == Causal::kInInference, training.before,
                   "a token sees later ones in training");
  return wrong;
}

std::string Packing(Subject& s, const Traits& t) {
  const int64_t T = s.Fit(63), D = s.D(), m = t.multiple_of;
  Way packed;
  for (const int64_t start : {0, 5, 6, 40}) packed.documents.push_back((start + m - 1) / m * m);
  const std::vector<double> x = InputOf(1, T, D);
  const Outcome all = RunBlock(s, x, 1, T, packed);
  double most = 0;
  for (size_t d = 0; d < packed.documents.size(); ++d) {
    const int64_t begin = packed.documents[d];
    const int64_t end = d + 1 < packed.documents.size() ? packed.documents[d + 1] : T;
    if (begin == end) continue;
    const auto part = [&](const std::vector<double>& v) {
      return std::vector<double>(v.begin() + begin * D, v.begin() + end * D);
    };
    const Outcome alone = RunBlock(s, part(x), 1, end - begin, {});
    most = std::max(most, MaxDifference(alone.y, part(all.y)));
  }
  return Judge(!t.packs, most, "the documents of a sequence mix");
}

std::string Rows(Subject& s, const Traits& t) {
  const int64_t T = s.Fit(63), D = s.D();
  const auto mixing = [&](const Way& way) {
    const Outcome both = RunBlock(s, InputOf(2, T, D), 2, T, way);
    const Outcome second = RunBlock(s, InputOf(1, T, D, 1), 1, T, way);
    return MaxDifference(std::span(both.y).subspan(second.y.size()), second.y);
  };
  return Judge(false, mixing({}), "the sequences of a batch mix outside of training") +
         Judge(t.mixes_rows, mixing(Training()), "the sequences of a batch mix in training");
}

std::string Decoding(Subject& s, const Traits& t) {
  if (t.causal == Causal::kNever && t.decodes)
    return "it says that it goes on from a state, and that its tokens see later ones\n";
  const int64_t T = s.Fit(63);
  const std::vector<double> x = InputOf(1, T, s.D());
  double difference = 2 * kSeen;
  try {
    const Outcome chunks = RunBlock(s, x, 1, T, {.chunks = {T / 2, 1, T - T / 2 - 1}});
    difference = MaxDifference(RunBlock(s, x, 1, T, {}).y, chunks.y);
  } catch (const CheckError&) {
    // A block may refuse a state.
  }
  return Judge(!t.decodes, difference, "chunks are not the whole");
}

bool RunsOn(Subject& s, int64_t T) {
  try {
    RunBlock(s, InputOf(1, T, s.D()), 1, T, {});
    return true;
  } catch (const CheckError&) {
    return false;
  }
}

std::string Lengths(Subject& s, const Traits& t) {
  std::string wrong;
  const int64_t fits = s.Fit(63);
  if (t.multiple_of > 1 && RunsOn(s, fits - 1))
    wrong += "it says that it needs a multiple of some tokens, and runs on any\n";
  if (t.multiple_of == 1 && !RunsOn(s, fits - 1)) wrong += "it does not run on any length\n";
  if (t.max_tokens > 0 && RunsOn(s, t.max_tokens + t.multiple_of))
    wrong += "it says that there is a longest sequence, and runs on a longer one\n";
  if (t.max_tokens == 0 && !RunsOn(s, 256 * t.multiple_of))
    wrong += "it does not run on a long sequence\n";
  return wrong;
}

}  // namespace

namespace {

std::string Values(Subject& s, const Traits& t) {
  if (!t.reads_values) return "";
  const int64_t T = s.Fit(63);
  const auto flops = [&](int64_t b0) {
    return RunBlock(s, InputOf(2, T, s.D(), b0), 2, T, {}).cost.flops;
  };
  return flops(0) != flops(2) || flops(0) != flops(4)
             ? ""
             : "it says that its sizes depend on values, and does as much whatever they are\n";
}

}  // namespace

std::string FalseTraits(Subject& s) {
  const Traits t = s.traits();
  const std::string lengths = Lengths(s, t);
  if (!lengths.empty()) return lengths;  // the others run on lengths that it says are right
  const bool exceptional = t.causal != Causal::kAlways || !t.packs || t.mixes_rows || !t.decodes ||
                           t.multiple_of > 1 || t.max_tokens > 0 || t.reads_values;
  return Causality(s, t) + Packing(s, t) + Rows(s, t) + Decoding(s, t) + Values(s, t) +
         (exceptional && t.why[0] == '\0' ? "it does not say why\n" : "");
}

}  // namespace tessera::testing
