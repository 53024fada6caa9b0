#include "arch/model_config.h"

#include "arch/placement.h"
#include "arch/traits.h"
#include "arch/tuning_check.h"
#include "config/map_reader.h"
#include "core/sizes.h"

namespace tessera {

void ModelConfig::Fields(FieldList& f) {
  f.Add("d_model", d_model, Between(1, kMaxModelWidth), "width of the residual stream");
  f.Add("vocab", vocab, "bytes, or the path of a tokenizer.json");
  f.Add("tie_embeddings", tie_embeddings, "the head is the embedding");
  f.Add("norm", norm, {{"rms", NormKind::kRms}, {"layer", NormKind::kLayer}}, "kind of all norms");
  f.Add("norm_eps", norm_eps, Positive(), "added to the variance");
  f.Add(
      "from", from,
      "a run, or a checkpoint of one, to begin with the weights of; without `layers` the model is "
      "the run's");
  f.Add("adapt", tuning.adapt, "train adapters beside the weights, which stay as they are");
  f.Add("dropout", dropout, FromBelow(0, 1),
        "part of the embedding and of each layer's output that is dropped in training");
  f.Add("classes", classes, Between(2, kMaxCount),
        "the head scores so many classes, for `train.objective: classify`; none: the next token");
}

void PlaceLayers(ModelConfig* config, const TrainingData& data, ErrorList* errors) {
  const BlockShape shape{.D = config->d_model,
                         .max_tokens = data.max_tokens,
                         .norm = config->norm,
                         .norm_eps = config->norm_eps,
                         .dropout = config->dropout};
  Place(&config->layers, shape, errors);
  if (errors->empty()) CheckTraining(config->layers, data, errors);
}

ModelConfig ReadModelConfig(const ConfigNode& model, const TrainingData& data, ErrorList* errors) {
  model.read = true;
  ModelConfig config;
  MapReader reader(model, "model", errors);
  FieldList fields;
  config.Fields(fields);
  reader.TakeFields(fields);
  if (const ConfigNode* from = model.Find("from")) config.from_where = from->where;
  const ConfigNode* list = reader.Require("layers", "the layer list");
  reader.Finish();
  if (config.classes && config.tie_embeddings)
    errors->Add(model.Error(
        "classes: the head scores classes, and tie_embeddings makes it the embedding of tokens; "
        "leave one of them out"));
  if (list == nullptr || !errors->empty()) return config;
  config.layers.Read(*list, "layers", errors);
  PlaceLayers(&config, data, errors);
  if (errors->empty()) CheckAdapters(config, model, errors);
  return config;
}

ConfigNode PrintModelConfig(const ModelConfig& config) {
  ModelConfig copy = config;
  FieldList fields;
  copy.Fields(fields);
  ConfigNode model = PrintMap(fields);
  model.entries.push_back({"layers", {}, config.layers.Print()});
  return model;
}

}  // namespace tessera
