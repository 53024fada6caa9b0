#ifndef TESSERA_TRAIN_CARRIED_H_
#define TESSERA_TRAIN_CARRIED_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "arch/cost.h"
#include "io/safetensors.h"
#include "kernels/device/memory.h"
#include "train/optimizer.h"

namespace tessera {

// The state that each micro-batch of a step leaves for that of the next step, where its rows go on
// (train.order: stream): constants, so that no gradient goes back into an earlier step, in memory
// of their own, outside of the arena that a step works in.
class CarriedStates {
 public:
  CarriedStates(const Model& model, Device device, int64_t micro_batches, int64_t batch);
  CarriedStates(const CarriedStates&) = delete;
  CarriedStates& operator=(const CarriedStates&) = delete;

  // Before its pass, which leaves it behind the batch; then Keep takes what it left.
  ModelState* At(int64_t micro);
  void Keep(int64_t micro);
  // As it was before the last pass of each.
  void Undo();
  // Every sequence begins anew.
  void Clear();

  // For a checkpoint: every value by its name, and how many tokens each row has passed.
  std::vector<Optimizer::State> Values();
  int64_t tokens() const { return states_.front().state.tokens(); }
  // The same again, after `tokens`.
  absl::Status Restore(const SafetensorsFile& file, int64_t tokens);

  // The most bytes of activations that a training pass over [batch, seq] takes with a state, found
  // on the meta device.
  static int64_t PassBytes(const ModelConfig& config, int64_t vocab_size, int64_t batch,
                           int64_t seq, DType compute);
  // Whether the model goes on from a state in training, and every state stays of one size however
  // long the stream is; the error names the layers whose do not.
  static absl::Status Check(const ModelConfig& config, const ModelCost& cost);

 private:
  struct One {
    ModelState state;
    State before;
    // By the value's path; of the last pass and, in turns, of the one before.
    std::map<std::string, Tensor> kept[2];
    size_t turn = 0;
  };
  // Memory of its own, which lasts as long as a tensor looks at it.
  Tensor New(const Shape& shape, DType dtype) const;
  // Of a state behind one token, without its values.
  State Outline() const;

  const Model& model_;
  Device device_;
  int64_t batch_;
  std::vector<One> states_;
};

}  // namespace tessera

#endif  // TESSERA_TRAIN_CARRIED_H_
