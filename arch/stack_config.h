#ifndef TESSERA_ARCH_STACK_CONFIG_H_
#define TESSERA_ARCH_STACK_CONFIG_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "arch/block.h"
#include "config/config.h"

// A list of layers in a config: the model's own, or one that a block holds. It is read as it is
// written, with `repeat` written out; where its layers stand, whom they read from and whether they
// fit there is found when all has been read (arch/placement.h).

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
  Location where;  // of its name

  // Of its placement:
  std::string path;  // layers[3].gla, layers[4].parallel[1].gla
  BlockShape shape;
  Context::Ports ports;
};

// One residual layer.
struct LayerConfig {
  std::vector<BranchConfig> branches;  // one, unless the layer is parallel
  Join combine = Join::kSum;
  NormPlace norm = NormPlace::kPre;
  bool residual = true;  // false: f in place of x + f
  double residual_scale = 1;
  std::optional<double> dropout;  // none: the model's
  bool recompute = false;
  std::string share;               // layers of one name in a list have one set of weights
  std::optional<LoraConfig> lora;  // adapters of its own beside weights that it shares
  std::string name;                // for later layers to read from
  std::string input;               // reads that layer's output in place of the stream

  // Of its placement:
  std::string place;  // in its list: layers[3].gla, layers[4].parallel
  std::string path;   // in the model: layers[2].recurrent.layers[3].gla
  // Addresses on the board: where its input is, where its output goes if a later layer reads it,
  // and all that it and the layers inside of it read from layers outside of it.
  std::string input_address, output_address;
  std::vector<std::string> outside;

  void Fields(FieldList& f);  // the keys beside the block
};

struct StackConfig {
  static constexpr char kType[] = "a list of layers";
  std::vector<LayerConfig> list;

  // As a key of a block's config: FieldList::Add.
  void Read(const ConfigNode& node, absl::string_view key, ErrorList* errors);
  ConfigNode Print() const;  // written out; reads back equal
  // Its layers and those inside of them, one that runs n times counted n times; saturates.
  int64_t Depth() const;
};

}  // namespace tessera

#endif  // TESSERA_ARCH_STACK_CONFIG_H_
