#ifndef TESSERA_ARCH_COST_H_
#define TESSERA_ARCH_COST_H_

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "arch/model.h"
#include "kernels/device/memory.h"

// What a model costs, before anything runs: the same forward and backward passes on the meta
// device, counted.

namespace tessera {

// A layer; where it holds others, without their parameters, states and FLOPs, which have rows of
// their own.
struct LayerCost {
  std::string path;        // layers[3].attention; also "model" (embedding, last norm) and "head"
  int64_t parameters = 0;  // a shared layer's are counted where they are made
  int64_t active_parameters = 0;  // used by any one token
  double forward_flops = 0;       // per token, at the given sequence length
  double training_flops = 0;      // per token, forward and backward, without recomputation
  // What its forward pass over [batch, seq] leaves in memory for the backward pass.
  int64_t activation_bytes = 0;
  int64_t state_bytes = 0;         // of one sequence, that does not grow with its length
  int64_t kv_bytes_per_token = 0;  // of one sequence, that does
};

struct ModelCost {
  int64_t batch = 0, seq = 0;
  int64_t parameters = 0, active_parameters = 0;
  int64_t trained_parameters = 0;                // those that are not frozen
  double forward_flops = 0, training_flops = 0;  // per token
  double recompute_flops =
      0;  // per token: spent again by layers with `recompute`, not counted as training
  double forward_bytes = 0, training_bytes = 0;  // per token: least memory traffic
  int64_t state_bytes = 0;         // of one sequence, that does not grow with its length
  int64_t kv_bytes_per_token = 0;  // of one sequence, that does
  int64_t activation_bytes =
      0;  // the peak of a training pass over [batch, seq], gradients of activations included
  int64_t cuda_scratch_bytes = 0;  // what kernels on a GPU use between launches besides
  std::vector<LayerCost> layers;
};

// One training pass: loss, then its gradient into the parameters, times `scale`, one fp32. tokens,
// targets, ctx.position: [B,T] int32. Returns the mean loss, an fp32 scalar. A state is where the
// sequences go on from, a constant; it is left behind them.
Tensor TrainPass(Context& ctx, const Model& model, const Tensor& tokens, const Tensor& targets,
                 const Tensor& scale, ModelState* state = nullptr);

// Whether the kernels of `device` can run the model: the CUDA kernels have largest sizes. The error
// names each layer that exceeds one.
absl::Status CheckDevice(Device device, const ModelConfig& config, int64_t vocab_size,
                         DType compute);

ModelCost MeasureCost(const ModelConfig& config, int64_t vocab_size, int64_t batch, int64_t seq,
                      DType compute);

// The memory that a pass takes at its peak: it is made on the meta device. Without gradients;
// MeasureCost tells those of training.
PassMemory MeasureMemory(DType compute, const std::function<void(Context&)>& pass);

}  // namespace tessera

#endif  // TESSERA_ARCH_COST_H_
