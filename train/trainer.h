#ifndef TESSERA_TRAIN_TRAINER_H_
#define TESSERA_TRAIN_TRAINER_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "arch/cost.h"
#include "arch/model.h"
#include "train/data.h"
#include "train/evaluate.h"
#include "train/run_config.h"

namespace tessera {

struct StepReport {
  int64_t step = 0;      // the one just done, from 1
  double loss = 0;       // mean cross-entropy, nats a token
  double grad_norm = 0;  // before clipping
  double lr = 0;
  double seconds = 0;
  double flops = 0;  // counted as its kernels ran: forward and backward, nothing run again
  double mfu = 0;    // flops / seconds / peak_flops()
  // Blocks' own metrics of the last micro-batch: "layers[1].moe.load" -> one or more values.
  std::map<std::string, std::vector<float>> metrics;
};

// A model in training: parameters, AdamW's moments and one arena for everything a step needs, all
// sized before the first step. A step is a pure function of (parameters, moments, step number,
// data), so a run continued from a checkpoint gives the same bits as one that never stopped.
class Trainer {
 public:
  // Checks the memory a step takes against what the machine has.
  static absl::StatusOr<std::unique_ptr<Trainer>> Create(const RunConfig& config,
                                                         int64_t vocab_size,
                                                         Device device = Device::kCpu);

  absl::StatusOr<StepReport> Step(const Dataset& data);
  Evaluation Evaluate(const Dataset& data);

  int64_t step() const { return step_; }
  const ModelCost& cost() const { return cost_; }
  const Model& model() const { return *model_; }
  int64_t parameter_bytes() const { return parameter_arena_.peak_bytes(); }
  int64_t activation_peak_bytes() const { return arena_.peak_bytes(); }
  // FLOP/s that the threads reach on registers alone, measured when the trainer was made.
  double peak_flops() const { return peak_flops_; }

  // What a checkpoint holds.
  struct Named {
    std::string name;
    Tensor tensor;
  };
  std::vector<Named> Weights() const;
  std::vector<Named> Moments() const;
  void Resume(int64_t step) { step_ = step; }

 private:
  Trainer(const RunConfig& config, int64_t vocab_size, Device device, const ModelCost& cost,
          int64_t parameter_bytes);
  Context NewContext();
  double Pass(const Batch& batch, double share, Metrics* metrics);

  RunConfig config_;
  Device device_;
  ModelCost cost_;
  Arena parameter_arena_, arena_;
  ParameterSet parameters_;
  std::unique_ptr<Model> model_;
  std::vector<Tensor> first_moments_, second_moments_;
  CostCounter counter_;
  double peak_flops_;
  int64_t step_ = 0;
};

}  // namespace tessera

#endif  // TESSERA_TRAIN_TRAINER_H_
