#ifndef TESSERA_TRAIN_EVALUATE_H_
#define TESSERA_TRAIN_EVALUATE_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "arch/model.h"
#include "data/batches.h"

namespace tessera {

struct Evaluation {
  double loss = 0;           // nats a token
  double bits_per_byte = 0;  // of the text that the targets stand for
  int64_t tokens = 0;        // targets
  // Of a head that scores classes: the part of the targets that it scores highest.
  std::optional<double> accuracy;
  bool stopped = false;  // before its end, by `progress`: the numbers are of the part before

  // What people compare: the part of documents whose class is right, or bits per byte.
  struct Number {
    const char* name;
    double value;
    const char* unit;
  };
  Number Headline() const {
    return accuracy ? Number{"accuracy", *accuracy, "of the documents right"}
                    : Number{"bits_per_byte", bits_per_byte, "bits per byte"};
  }
};

// Told after each batch how many are done, of how many; false ends the evaluation there, as after a
// signal.
using EvaluationProgress = std::function<bool(int64_t, int64_t)>;

// The validation batches of `data`, B x T tokens each, from a fresh state or, of a source that
// continues, from that of the batch before; the first `most_tokens` targets, if it has so many.
// Errors: no target at all, since a loss of nothing would look perfect.
absl::StatusOr<Evaluation> Evaluate(Context& ctx, const Model& model, const BatchSource& data,
                                    int64_t B, int64_t T, int64_t most_tokens,
                                    const EvaluationProgress& progress = nullptr);

// A batch as a pass takes it: inputs and targets [B,T] in the context's arena, and ctx.position.
void LoadBatch(Context& ctx, const Batch& batch, Tensor* tokens, Tensor* targets);

}  // namespace tessera

#endif  // TESSERA_TRAIN_EVALUATE_H_
