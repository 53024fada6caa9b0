#ifndef TESSERA_TRAIN_EVALUATE_H_
#define TESSERA_TRAIN_EVALUATE_H_

#include <cstdint>
#include <functional>
#include <vector>

#include "arch/model.h"
#include "train/data.h"

namespace tessera {

struct Evaluation {
  double loss = 0;           // nats a token
  double bits_per_byte = 0;  // of the text that the targets stand for
  int64_t tokens = 0;        // targets
};

// The validation part of `data`, in windows of T tokens that do not overlap, each from a fresh
// state, B at a time. At most `most_tokens` of it. `progress`, if any, is told how many batches are
// done, of how many.
Evaluation Evaluate(Context& ctx, const Model& model, const Dataset& data, int64_t B, int64_t T,
                    int64_t most_tokens,
                    const std::function<void(int64_t, int64_t)>& progress = nullptr);

// Each input's place in its document, [B T].
std::vector<int32_t> Positions(const Batch& batch);

// A batch as a pass takes it: inputs and targets [B,T] in the context's arena, and ctx.position.
void LoadBatch(Context& ctx, const Batch& batch, Tensor* tokens, Tensor* targets);

}  // namespace tessera

#endif  // TESSERA_TRAIN_EVALUATE_H_
