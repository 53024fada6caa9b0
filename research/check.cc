#include "research/check.h"

#include "arch/cost.h"
#include "data/tokenizer.h"
#include "train/run_config.h"

namespace tessera {
namespace {

absl::StatusOr<double> CostOf(const Contestant& of, Quantity quantity) {
  const absl::StatusOr<RunConfig> config = ReadRunConfig(of.config, of.set);
  if (!config.ok()) return config.status();
  const auto tokenizer = LoadTokenizer(config->model.vocab);
  if (!tokenizer.ok()) return tokenizer.status();
  const TrainConfig& t = config->train;
  const ModelCost cost =
      MeasureCost(config->model, (*tokenizer)->vocab_size(), t.batch, t.seq, t.precision);
  switch (quantity) {
    case Quantity::kParameters:
      return static_cast<double>(cost.parameters);
    case Quantity::kActiveParameters:
      return static_cast<double>(cost.active_parameters);
    case Quantity::kForwardFlops:
      return cost.forward_flops;
    case Quantity::kTrainingFlops:
      return cost.training_flops;
    case Quantity::kActivationBytes:
      return static_cast<double>(cost.activation_bytes);
    case Quantity::kDecodeStateBytes:
      return static_cast<double>(cost.state_bytes + cost.kv_bytes_per_token * t.seq);
  }
  return absl::InternalError("no such quantity");
}

}  // namespace

absl::StatusOr<double> Measure(const CostCheck& check) {
  const absl::StatusOr<double> of = CostOf(check.of, check.quantity);
  if (!of.ok()) return of.status();
  const absl::StatusOr<double> over = CostOf(check.over, check.quantity);
  if (!over.ok()) return over.status();
  if (*over == 0) return absl::InvalidArgumentError("what is divided by is zero");
  return *of / *over;
}

}  // namespace tessera
