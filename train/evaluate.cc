#include "train/evaluate.h"

#include <algorithm>
#include <cmath>

#include "kernels/device/memory.h"

namespace tessera {

std::vector<int32_t> Positions(const Batch& batch) {
  if (!batch.position.empty()) return batch.position;
  std::vector<int32_t> position(static_cast<size_t>(batch.B * batch.T));
  for (size_t i = 0; i < position.size(); ++i)
    position[i] = static_cast<int32_t>(i % static_cast<size_t>(batch.T));
  return position;
}

void LoadBatch(Context& ctx, const Batch& batch, Tensor* tokens, Tensor* targets) {
  const Shape shape = {batch.B, batch.T};
  *tokens = ctx.New(shape, DType::kI32);
  *targets = ctx.New(shape, DType::kI32);
  ctx.position = ctx.New(shape, DType::kI32);
  const Device device = ctx.device();
  Upload(device, tokens->raw(), batch.inputs.data(), tokens->bytes());
  Upload(device, targets->raw(), batch.targets.data(), targets->bytes());
  Upload(device, ctx.position.raw(), Positions(batch).data(), ctx.position.bytes());
}

absl::StatusOr<Evaluation> Evaluate(Context& ctx, const Model& model, const Dataset& data,
                                    int64_t B, int64_t T, int64_t most_tokens,
                                    const EvaluationProgress& progress) {
  const int64_t batches = data.ValidationBatches(B, T);
  Evaluation e;
  double nats = 0, bytes = 0;
  for (int64_t i = 0; i < batches && e.tokens < most_tokens && !e.stopped; ++i) {
    const Batch batch = data.ValidationBatch(i, B, T, most_tokens - e.tokens);
    if (batch.target_count > 0) {
      Tensor tokens, targets;
      LoadBatch(ctx, batch, &tokens, &targets);
      float loss;
      Download(ctx.device(), &loss, model.Loss(ctx, tokens, targets).value().raw(), sizeof loss);
      nats += static_cast<double>(loss) * static_cast<double>(batch.target_count);
      bytes += static_cast<double>(batch.target_bytes);
      e.tokens += batch.target_count;
      ctx.position = Tensor();  // its memory is the next batch's
    }
    // As many more as the targets that are left fill, if none is masked.
    const int64_t left = (most_tokens - e.tokens) / (B * T) + (most_tokens > e.tokens ? 1 : 0);
    if (progress) e.stopped = !progress(i + 1, std::min(batches, i + 1 + left));
  }
  if (e.tokens == 0 && !e.stopped)
    return absl::InvalidArgumentError(
        "nothing was evaluated: no token of the data has a next one to predict; give longer "
        "documents or more of them");
  e.loss = nats / static_cast<double>(std::max<int64_t>(1, e.tokens));
  e.bits_per_byte = nats / std::log(2.0) / std::max(1.0, bytes);
  return e;
}

}  // namespace tessera
