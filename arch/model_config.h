#ifndef TESSERA_ARCH_MODEL_CONFIG_H_
#define TESSERA_ARCH_MODEL_CONFIG_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "arch/block.h"
#include "config/config.h"
#include "kernels/rows/norm.h"

namespace tessera {

// Where a layer normalises: pre x + f(n(x)); post n(x + f(x)); sandwich x + n'(f(n(x))); none x +
// f(x).
enum class NormPlace : uint8_t { kPre, kPost, kSandwich, kNone };

// How the branches of a parallel layer become one: added, averaged, or concatenated and projected
// back to d_model.
enum class Join : uint8_t { kSum, kMean, kConcat };

struct BranchConfig {
  const BlockType* type = nullptr;
  std::shared_ptr<BlockType::Config> config;
};

// One residual layer, after `repeat` has been written out.
struct LayerConfig {
  std::string path;                    // layers[3].attention, layers[4].parallel
  std::vector<BranchConfig> branches;  // one, unless the layer is parallel
  Join combine = Join::kSum;
  NormPlace norm = NormPlace::kPre;
  double residual_scale = 1;
  bool recompute = false;
  std::string share;  // layers of one name have one set of weights
  std::string name;   // for later layers to read from
  std::string input;  // reads that layer's output in place of the stream

  void Fields(FieldList& f);  // the keys beside the block
};

// The `model:` part of a config.
struct ModelConfig {
  int64_t d_model = 256;
  std::string vocab = "bytes";
  bool tie_embeddings = false;
  NormKind norm = NormKind::kRms;
  double norm_eps = 1e-5;
  std::vector<LayerConfig> layers;

  void Fields(FieldList& f);  // the keys beside `layers`
};

// Reads `model:`; adds every mistake to `errors`, with its place.
ModelConfig ReadModelConfig(const ConfigNode& model, ErrorList* errors);

// The resolved config, layers written out; reads back equal.
ConfigNode PrintModelConfig(const ModelConfig& config);

}  // namespace tessera

#endif  // TESSERA_ARCH_MODEL_CONFIG_H_
