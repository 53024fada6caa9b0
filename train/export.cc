#include "train/export.h"

#include <vector>

#include "absl/strings/str_cat.h"
#include "core/catch.h"
#include "core/status.h"
#include "io/files.h"
#include "kernels/dispatch.h"
#include "ops/product_args.h"
#include "train/run.h"
#include "train/run_identity.h"
#include "train/weights.h"

namespace tessera {
namespace {

// W += scale B A.
void Merge(const Tensor& weight, const Tensor& up, const Tensor& down, float scale) {
  const std::vector<float> scales(static_cast<size_t>(weight.dim(0)), scale);
  Dispatch(Device::kCpu, MatmulArgs{.a = FactorOf(up),
                                    .b = FactorOf(down),
                                    .c = ProductOf(weight, Grad::kAccumulate),
                                    .row_scale = scales.data(),
                                    .M = weight.dim(0),
                                    .N = weight.dim(1),
                                    .K = down.dim(0)});
}

absl::Status Export(const std::string& from, const std::string& to) {
  TESSERA_ASSIGN_OR_RETURN(const PathKind there, KindOf(to));
  if (there != PathKind::kNothing)
    return absl::AlreadyExistsError(absl::StrCat(to, " exists; choose another folder with -o"));
  TESSERA_ASSIGN_OR_RETURN(const LoadedRun run, LoadRun(from));
  if (run.parameters->adapted().empty() && run.config.model.from.empty())
    return absl::InvalidArgumentError(absl::StrCat(
        from,
        " has nothing to merge: its model has no adapters (model.adapt), and its checkpoint "
        "holds all of its weights"));
  MergeAdapters(run.parameters.get());
  std::vector<TensorView> weights;
  for (const Parameter& p : run.parameters->all()) {
    if (p.adapter) continue;
    weights.push_back(ViewOf(p.name, p.var.value()));
    weights.back().data = p.var.value().raw();
  }
  RunConfig config = run.config;
  config.model.from.clear();
  config.model.tuning = {};
  config.train.freeze.clear();
  const RunIdentity identity{.config = PrintRunConfig(config),
                             .tokenizer_hash = HashOf(*run.tokenizer)};
  nlohmann::json metadata = identity.ToJson();
  metadata["tokens"] = 0;
  TESSERA_RETURN_IF_ERROR(MakeNewDirectory(to));
  TESSERA_RETURN_IF_ERROR(
      SaveCheckpoint(to, run.step, {.model = weights, .optimizer = {}}, metadata, 1));
  if (const std::string text = run.tokenizer->Serialize(); !text.empty())
    TESSERA_RETURN_IF_ERROR(AtomicWrite(to + "/tokenizer.json", text));
  // Last: with it the folder is a run.
  return AtomicWrite(to + "/config.yaml", identity.config);
}

}  // namespace

void MergeAdapters(ParameterSet* parameters) {
  for (const ParameterSet::Adapted& each : parameters->adapted()) {
    const Tensor &weight = each.weight.value(), &up = each.adapter.up.value(),
                 &down = each.adapter.down.value();
    if (weight.shape().rank() == 2) {
      Merge(weight, up, down, each.adapter.scale);
    } else {
      for (int64_t e = 0; e < weight.dim(0); ++e)
        Merge(weight[e], up[e], down[e], each.adapter.scale);
    }
  }
}

absl::Status ExportMerged(const std::string& from, const std::string& to) {
  return CatchErrors([&] { return Export(from, to); });
}

}  // namespace tessera
