#ifndef TESSERA_ARCH_TUNING_H_
#define TESSERA_ARCH_TUNING_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "config/fields.h"

// What of a model is trained: all of it, what no pattern freezes, or adapters beside its weights.

namespace tessera {

// Whether a pattern fits a parameter's name, from the beginning of one of its parts (behind a dot)
// to the end: attention.* fits layers[0].attention.q, and embedding fits model.embedding. A *
// stands for any text, | between alternatives, ! before one that is to be left out, as in
// layers*|!router, and all else for itself.
bool Fits(const std::string& pattern, const std::string& name);

// Adapters of low rank beside weights (Hu et al. 2021, arXiv:2106.09685): W x + (alpha / rank) B A
// x, where B is 0 at first.
struct LoraConfig {
  int64_t rank = 8;
  double alpha = 16;
  std::string match = "layers*|!router|!shared.gate";  // a pattern of names of projections

  void Fields(FieldList& f);
  float scale() const { return static_cast<float>(alpha / static_cast<double>(rank)); }
};

struct AdaptConfig {
  std::optional<LoraConfig> lora = LoraConfig();
  void Fields(FieldList& f);
};

struct Tuning {
  std::vector<std::string> freeze;   // patterns of what stays as it is
  std::optional<AdaptConfig> adapt;  // the adapters alone are trained
  // None where nothing is adapted; a rank of 0 adds nothing.
  const LoraConfig* lora() const {
    return adapt && adapt->lora && adapt->lora->rank > 0 ? &*adapt->lora : nullptr;
  }
};

}  // namespace tessera

#endif  // TESSERA_ARCH_TUNING_H_
