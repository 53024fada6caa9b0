#ifndef TESSERA_TRAIN_TRAINER_H_
#define TESSERA_TRAIN_TRAINER_H_

#include <chrono>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "arch/cost.h"
#include "arch/model.h"
#include "data/batches.h"
#include "kernels/device/memory.h"
#include "train/carried.h"
#include "train/evaluate.h"
#include "train/optimizer.h"
#include "train/run_config.h"

namespace tessera {

struct StepReport {
  int64_t step = 0;      // the one just done, from 1
  double loss = 0;       // mean cross-entropy, nats a token
  double grad_norm = 0;  // before clipping
  double lr = 0;
  double seconds = 0;  // since the step before, or since it was started
  double flops = 0;    // counted as its kernels ran: forward and backward, nothing run again
  double mfu = 0;      // flops / seconds / peak_flops()
  // Blocks' own metrics of the last micro-batch: "layers[1].moe.load" -> one or more values.
  std::map<std::string, std::vector<float>> metrics;
};

// A model in training: parameters, the optimiser's states and one arena for everything a step
// needs, all sized before the first step. A step is a pure function of (parameters, states, step
// number, data), so a run continued from a checkpoint gives the same bits as one that never
// stopped.
//
// On a GPU the second step is recorded as a graph, which the steps after it launch as it is: what
// differs between steps (tokens, learning rate) is copied to the device before. Steps are started
// ahead of their reports, so that the device never waits for the host.
class Trainer {
 public:
  // Checks the memory a step takes against what the device has and, for a GPU, that there are
  // kernels for the model's sizes.
  static absl::StatusOr<std::unique_ptr<Trainer>> Create(const RunConfig& config,
                                                         int64_t vocab_size,
                                                         Device device = Device::kCpu);
  // How many steps may be started before the first of them is finished: 1 on the CPU, where Start
  // does all the work, and where a step goes on from the state of the one before; 2 on a GPU else.
  int64_t most_started() const { return device_ == Device::kCuda && carried_ == nullptr ? 2 : 1; }
  int64_t started() const { return static_cast<int64_t>(started_.size()); }
  void Start(const BatchSource& data);
  // Waits for the first step started. A loss or gradient that is not finite is an error; neither
  // that step nor one started after it updates anything.
  absl::StatusOr<StepReport> Finish();
  absl::StatusOr<StepReport> Step(const BatchSource& data) {
    Start(data);
    return Finish();
  }

  // The bytes of a model's parameters, its gradients, the optimiser's states and what else stays
  // from step to step.
  static int64_t StandingBytes(const RunConfig& config, int64_t vocab_size);

  // Of the steps started.
  int64_t step() const { return step_; }
  // The next ones need that all steps started are finished.
  absl::StatusOr<Evaluation> Evaluate(const BatchSource& data,
                                      const EvaluationProgress& progress = nullptr);
  // What a checkpoint holds.
  using Named = Optimizer::State;
  std::vector<Named> Weights() const;  // and buffers
  const std::vector<Named>& OptimizerStates() const { return optimizer_->states(); }
  void Resume(int64_t step) { step_ = step; }
  // Of rows that go on from step to step, where train.order asks for it; null else.
  CarriedStates* carried() { return carried_.get(); }

  Device device() const { return device_; }
  const ModelCost& cost() const { return cost_; }
  const Model& model() const { return *model_; }
  const ParameterSet& parameters() const { return parameters_; }
  int64_t parameter_bytes() const { return parameter_arena_.peak_bytes(); }
  int64_t activation_peak_bytes() const { return arena_.peak_bytes(); }
  // FLOP/s that the device can reach: the CPU's threads on registers alone, a GPU in a large
  // product. Measured when the trainer was made.
  double peak_flops() const { return peak_flops_; }

 private:
  using Clock = std::chrono::steady_clock;
  struct Started {
    int64_t step;
    double lr;
    Clock::time_point at;
    int64_t mark;
  };
  // Where a metric's values are among those that a step brings back.
  struct MetricValues {
    std::string name;
    int64_t first, count;
  };
  // The host's side of a step in flight.
  struct Slot {
    HostBuffer integers, scalars, outcome;
  };

  // What a step needs beside the model and its activations. In the device's memory: what it reads,
  // integers, int32 (inputs, targets and positions [3, micro-batches, B T], and the number of each
  // micro-batch of the run, for noise), and scalars (OptimizerStep,
  // then each micro-batch's share of the targets), and what it leaves, outcome (StepOutcome, then
  // the metrics).
  struct StepTensors {
    StepTensors(Arena* arena, Device device, const Optimizer& optimizer, const TrainConfig& t,
                int64_t outcome_floats);
    Tensor integers, scalars, outcome, losses, partial;
  };

  Trainer(const RunConfig& config, int64_t vocab_size, Device device, const ModelCost& cost,
          std::vector<MetricValues> metrics, int64_t parameter_bytes, double peak_flops);
  static absl::StatusOr<std::unique_ptr<Trainer>> Make(const RunConfig& config, int64_t vocab_size,
                                                       Device device);
  static std::vector<MetricValues> MetricsOf(const RunConfig& config, int64_t vocab_size);
  static int64_t OutcomeFloats(const std::vector<MetricValues>& metrics);
  static int64_t BytesWith(const RunConfig& config, int64_t vocab_size, int64_t outcome_floats);
  Context NewContext();
  void FillInputs(const BatchSource& data, const Slot& slot);
  void RunStep();
  void Pass(int64_t micro);
  void UpdateParameters();

  RunConfig config_;
  Device device_;
  ModelCost cost_;
  std::vector<MetricValues> metrics_;
  Arena parameter_arena_, arena_;
  ParameterSet parameters_;
  std::unique_ptr<Model> model_;
  std::unique_ptr<Optimizer> optimizer_;
  std::unique_ptr<StepTensors> tensors_;
  std::unique_ptr<CarriedStates> carried_;
  std::vector<std::unique_ptr<Slot>> slots_;
  std::deque<Started> started_;
  std::unique_ptr<CudaDevice::Graph> graph_;
  int64_t steps_run_ = 0;  // by this object
  Clock::time_point last_finish_;
  CostCounter counter_;
  double peak_flops_;
  int64_t step_ = 0;
};

}  // namespace tessera

#endif  // TESSERA_TRAIN_TRAINER_H_
