#include "train/evaluate.h"

#include <algorithm>
#include <cmath>

#include "kernels/device/memory.h"

namespace tessera {

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

namespace {

// Targets [B,T] of a batch whose row of scores [B T, classes] has its largest at them.
int64_t CountRight(Device device, const Var& scores, const std::vector<int32_t>& targets) {
  const int64_t rows = scores.rows(), classes = scores.dim(-1);
  std::vector<float> on_host(static_cast<size_t>(rows * classes));
  if (scores.dtype() == DType::kF32) {
    Download(device, on_host.data(), scores.value().raw(), scores.value().bytes());
  } else {
    std::vector<bf16> halves(on_host.size());
    Download(device, halves.data(), scores.value().raw(), scores.value().bytes());
    std::transform(halves.begin(), halves.end(), on_host.begin(),
                   [](bf16 x) { return static_cast<float>(x); });
  }
  int64_t right = 0;
  for (int64_t row = 0; row < rows; ++row) {
    const float* const first = on_host.data() + row * classes;
    right += std::max_element(first, first + classes) - first == targets[static_cast<size_t>(row)];
  }
  return right;
}

}  // namespace

absl::StatusOr<Evaluation> Evaluate(Context& ctx, const Model& model, const BatchSource& data,
                                    int64_t B, int64_t T, int64_t most_tokens,
                                    const EvaluationProgress& progress) {
  const int64_t batches = data.ValidationBatches(B, T);
  Evaluation e;
  double nats = 0, bytes = 0;
  int64_t right = 0;
  ModelState state = model.NewState(B, 0);
  for (int64_t i = 0; i < batches && e.tokens < most_tokens && !e.stopped; ++i) {
    const Batch batch = data.ValidationBatch(i, B, T, most_tokens - e.tokens);
    if (batch.target_count > 0) {
      Tensor tokens, targets;
      LoadBatch(ctx, batch, &tokens, &targets);
      const Var hidden = model.Hidden(ctx, tokens, data.continues() ? &state : nullptr);
      float loss;
      Download(ctx.device(), &loss, model.LossOf(ctx, hidden, targets).value().raw(), sizeof loss);
      if (model.config().classes)
        right += CountRight(ctx.device(), model.Logits(ctx, hidden), batch.targets);
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
  if (model.config().classes)
    e.accuracy = static_cast<double>(right) / static_cast<double>(std::max<int64_t>(1, e.tokens));
  return e;
}

}  // namespace tessera
