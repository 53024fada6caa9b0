#ifndef TESSERA_ARCH_MODEL_CONFIG_H_
#define TESSERA_ARCH_MODEL_CONFIG_H_

#include <cstdint>
#include <optional>
#include <string>

#include "arch/stack_config.h"
#include "arch/tuning.h"
#include "config/config.h"
#include "kernels/rows/norm.h"

namespace tessera {

// The `model:` part of a config.
struct ModelConfig {
  int64_t d_model = 256;
  std::string vocab = "bytes";
  bool tie_embeddings = false;
  NormKind norm = NormKind::kRms;
  double norm_eps = 1e-5;
  std::string from;  // a run, or a checkpoint of one, whose weights are those at the start
  Location from_where;
  Tuning tuning;  // `adapt`, and the train section's `freeze`
  double dropout = 0;
  // The head scores so many classes in place of the vocabulary.
  std::optional<int64_t> classes;
  StackConfig layers;

  void Fields(FieldList& f);  // the keys beside `layers`
};

// What a model is to be trained on.
struct TrainingData {
  int64_t max_tokens = 0;  // the longest sequence; 0: not known
  bool packed = false;     // with several documents in a sequence
  bool ahead = false;      // to tell of each token the next one
};

// Reads `model:`; adds every mistake to `errors`, with its place.
ModelConfig ReadModelConfig(const ConfigNode& model, const TrainingData& data, ErrorList* errors);

// Finds where the layers of a config stand that was put together in other ways.
void PlaceLayers(ModelConfig* config, const TrainingData& data, ErrorList* errors);

// The resolved config, layers written out; reads back equal.
ConfigNode PrintModelConfig(const ModelConfig& config);

}  // namespace tessera

#endif  // TESSERA_ARCH_MODEL_CONFIG_H_
