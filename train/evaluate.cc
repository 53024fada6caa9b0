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
      float loss;
      Download(ctx.device(), &loss, model.Loss(ctx, tokens, targets).value().raw(), sizeof loss);
      nats += static_cast<double>(loss) * static_cast<double>(batch.target_count);
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
