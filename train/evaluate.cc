#include "train/evaluate.h"

#include <algorithm>
#include <cmath>

namespace tessera {

void LoadBatch(Context& ctx, const Batch& batch, Tensor* tokens, Tensor* targets) {
  const Shape shape = {batch.B, batch.T};
  *tokens = ctx.New(shape, DType::kI32);
  *targets = ctx.New(shape, DType::kI32);
  ctx.position = ctx.New(shape, DType::kI32);
  std::copy(batch.inputs.begin(), batch.inputs.end(), tokens->data<int32_t>());
  std::copy(batch.targets.begin(), batch.targets.end(), targets->data<int32_t>());
  int32_t* position = ctx.position.data<int32_t>();
  for (int64_t i = 0; i < batch.B * batch.T; ++i)
    position[i] = batch.position.empty() ? static_cast<int32_t>(i % batch.T)
                                         : batch.position[static_cast<size_t>(i)];
}

Evaluation Evaluate(Context& ctx, const Model& model, const Dataset& data, int64_t B, int64_t T,
                    int64_t most_tokens, const std::function<void(int64_t, int64_t)>& progress) {
  const int64_t batches =
      std::min(std::max<int64_t>(1, most_tokens / (B * T)), data.ValidationBatches(B, T));
  Evaluation e;
  double nats = 0, bytes = 0;
  for (int64_t i = 0; i < batches; ++i) {
    const Batch batch = data.ValidationBatch(i, B, T);
    if (batch.target_count > 0) {
      Tensor tokens, targets;
      LoadBatch(ctx, batch, &tokens, &targets);
      const double loss = static_cast<double>(model.Loss(ctx, tokens, targets).data<float>()[0]);
      nats += loss * static_cast<double>(batch.target_count);
      bytes += static_cast<double>(batch.target_bytes);
      e.tokens += batch.target_count;
      ctx.position = Tensor();  // its memory is the next batch's
    }
    if (progress) progress(i + 1, batches);
  }
  e.loss = nats / static_cast<double>(std::max<int64_t>(1, e.tokens));
  e.bits_per_byte = nats / std::log(2.0) / std::max(1.0, bytes);
  return e;
}

}  // namespace tessera
