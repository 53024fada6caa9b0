#ifndef TESSERA_TRAIN_EVALUATE_H_
#define TESSERA_TRAIN_EVALUATE_H_

#include <cstdint>
#include <functional>
#include <vector>

#include "absl/status/statusor.h"
#include "arch/model.h"
#include "data/dataset.h"

namespace tessera {

struct Evaluation {
  double loss = 0;           // nats a token
  double bits_per_byte = 0;  // of the text that the targets stand for
  int64_t tokens = 0;        // targets
  bool stopped = false;      // before its end, by `progress`: the numbers are of the part before
};

// Told after each batch how many are done, of how many; false ends the evaluation there, as after a
// signal.
using EvaluationProgress = std::function<bool(int64_t, int64_t)>;

// The validation part of `data`, in windows of T tokens that do not overlap, each from a fresh
// state, B at a time; the first `most_tokens` targets of it, if it has so many. Errors: no target
// at all, since a loss of nothing would look perfect.
absl::StatusOr<Evaluation> Evaluate(Context& ctx, const Model& model, const Dataset& data,
                                    int64_t B, int64_t T, int64_t most_tokens,
                                    const EvaluationProgress& progress = nullptr);

// Each input's place in its document, [B T].
std::vector<int32_t> Positions(const Batch& batch);

// A batch as a pass takes it: inputs and targets [B,T] in the context's arena, and ctx.position.
void LoadBatch(Context& ctx, const Batch& batch, Tensor* tokens, Tensor* targets);

}  // namespace tessera

#endif  // TESSERA_TRAIN_EVALUATE_H_
