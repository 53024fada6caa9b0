#include "arch/model_config.h"

#include "absl/strings/str_cat.h"
#include "arch/registry.h"
#include "config/map_reader.h"
#include "core/sizes.h"

namespace tessera {
namespace {

constexpr int64_t kMaxLayers = 10000;

std::vector<std::string> BlockNames() {
  std::vector<std::string> names;
  for (const BlockType* type : AllBlocks()) names.push_back(type->name);
  return names;
}

// A block by its name and keys: `gla`, or `gla: {heads: 2}`.
BranchConfig ReadBlock(const std::string& name, const Location& where, const ConfigNode* keys,
                       const BlockShape& shape, ErrorList* errors) {
  BranchConfig branch{.type = FindBlock(name)};
  if (branch.type == nullptr) {
    if (keys != nullptr) keys->MarkRead();
    errors->Add(absl::InvalidArgumentError(absl::StrCat(
        where.ToString(), ": ", UnknownName("block", name, "a layer", BlockNames()),
        name.find(':') == std::string::npos ? ""
                                            : "; a block with keys is written {" + name + "}")));
    return branch;
  }
  branch.config = branch.type->make_config();
  FieldList fields;
  branch.config->Fields(fields);
  if (keys != nullptr) {
    keys->MarkRead();
    ReadMap(*keys, fields, name, errors);
  }
  if (const absl::Status checked = branch.config->Check(shape); !checked.ok())
    errors->Add(absl::InvalidArgumentError(
        absl::StrCat(where.ToString(), ": ", name, ": ", checked.message())));
  return branch;
}

class LayerReader {
 public:
  LayerReader(int64_t D, ErrorList* errors) : shape_{.D = D, .layers = 1}, errors_(errors) {}
  std::vector<LayerConfig> layers;

  void ReadList(const ConfigNode& list) {
    list.read = true;
    if (list.kind != ConfigNode::Kind::kList || list.items.empty()) {
      errors_->Add(list.Error(
          absl::StrCat("layers: expected a list of layers such as [attention, mlp], got ",
                       list.kind == ConfigNode::Kind::kList ? "an empty one" : list.KindName())));
      return;
    }
    for (const ConfigNode& item : list.items) ReadItem(item);
  }

  // Names must be known before they are read from, and weights shared between like layers.
  void CheckNames(const ConfigNode& where) {
    for (size_t i = 0; i < layers.size(); ++i) {
      const LayerConfig& l = layers[i];
      const auto bad = [&](const auto&... what) {
        errors_->Add(where.Error(absl::StrCat(l.path, ": ", what...)));
      };
      for (size_t j = 0; j < i; ++j) {
        if (!l.share.empty() && layers[j].share == l.share && !Alike(layers[j], l))
          bad("share: ", l.share, " is the name of another kind of layer, ", layers[j].path);
      }
      if (!l.input.empty() && Named(i, l.input) == nullptr)
        bad("input: no earlier layer has the name '", l.input, "'");
      bool reads = !l.input.empty();
      for (const BranchConfig& b : l.branches) {
        const std::string name = b.config == nullptr ? "" : b.config->Source();
        if (name.empty()) continue;
        reads = true;
        const LayerConfig* source = Named(i, name);
        if (source == nullptr) {
          bad("no earlier layer has the name '", name, "'");
        } else if (source->branches.size() != 1) {
          bad("the layer '", name, "' is parallel; read from a layer of one block");
        } else if (const absl::Status s =
                       b.config->CheckSource(*source->branches[0].config, shape_);
                   !s.ok()) {
          bad("the layer '", name, "' ", s.message());
        } else if (source->recompute) {
          bad("the layer '", name, "' has recompute: true, so what it leaves cannot be read");
        }
      }
      if (reads && l.recompute)
        bad("recompute: a layer that reads another keeps its activations; leave it out");
    }
  }

 private:
  // The last layer before layer `i` of that name; null without.
  const LayerConfig* Named(size_t i, const std::string& name) const {
    while (i-- > 0)
      if (layers[i].name == name) return &layers[i];
    return nullptr;
  }

  static bool Alike(const LayerConfig& a, const LayerConfig& b) {
    if (a.branches.size() != b.branches.size() || a.norm != b.norm || a.combine != b.combine)
      return false;
    for (size_t i = 0; i < a.branches.size(); ++i) {
      if (a.branches[i].type != b.branches[i].type || a.branches[i].config == nullptr) return false;
      FieldList x, y;
      a.branches[i].config->Fields(x);
      b.branches[i].config->Fields(y);
      if (PrintYamlFlow(PrintMap(x)) != PrintYamlFlow(PrintMap(y))) return false;
    }
    return true;
  }

  void Push(LayerConfig layer, const std::string& block) {
    layer.path = absl::StrCat("layers[", layers.size(), "].", block);
    layers.push_back(std::move(layer));
  }

  void ReadItem(const ConfigNode& item) {
    item.read = true;
    if (static_cast<int64_t>(layers.size()) >= kMaxLayers) {
      errors_->Add(item.Error(absl::StrCat("more than ", kMaxLayers, " layers")));
      return;
    }
    if (item.kind == ConfigNode::Kind::kScalar) {
      LayerConfig layer;
      layer.branches = {ReadBlock(item.Text(), item.where, nullptr, shape_, errors_)};
      Push(std::move(layer), item.text);
      return;
    }
    MapReader reader(item, "a layer", errors_);
    if (const ConfigNode* times = reader.Take("repeat")) {
      ReadRepeat(*times, reader);
      return;
    }
    LayerConfig layer;
    FieldList fields;
    layer.Fields(fields);
    reader.TakeFields(fields);
    if (const ConfigNode* parallel = reader.Take("parallel")) {
      ReadParallel(*parallel, &layer);
      reader.Finish();
      if (!layer.branches.empty()) Push(std::move(layer), "parallel");
      return;
    }
    const auto rest = reader.Rest();
    if (rest.size() != 1) {
      errors_->Add(item.Error(absl::StrCat(
          "a layer holds one block, this one has ", rest.size(), rest.empty() ? "" : ": ",
          rest.empty() ? "" : rest[0]->key, rest.size() > 1 ? ", " + rest[1]->key : "")));
      item.MarkRead();
      return;
    }
    layer.branches = {
        ReadBlock(rest[0]->key, rest[0]->key_where, &rest[0]->value, shape_, errors_)};
    Push(std::move(layer), rest[0]->key);
  }

  void ReadRepeat(const ConfigNode& times, MapReader& reader) {
    int64_t n = 1;
    FieldList fields;
    fields.Add("repeat", n, Between(1, 1000), "times");
    ReadField(times, fields.all()[0], errors_);
    const ConfigNode* inner = reader.Require("layers", "the layers to repeat");
    reader.Finish();
    for (int64_t i = 0; inner != nullptr && i < n && errors_->empty(); ++i) ReadList(*inner);
  }

  void ReadParallel(const ConfigNode& node, LayerConfig* layer) {
    node.read = true;
    if (node.kind == ConfigNode::Kind::kList) {
      node.MarkRead();
      errors_->Add(node.Error(
          "parallel: expected a map, such as {combine: sum, branches: [attention, mamba2]}, got a "
          "list"));
      return;
    }
    MapReader reader(node, "parallel", errors_);
    FieldList fields;
    fields.Add("combine", layer->combine,
               {{"sum", Join::kSum}, {"mean", Join::kMean}, {"concat", Join::kConcat}},
               "how the branches become one");
    reader.TakeFields(fields);
    const ConfigNode* branches = reader.Require("branches", "a list of blocks");
    reader.Finish();
    if (branches == nullptr) return;
    branches->read = true;
    if (branches->kind != ConfigNode::Kind::kList || branches->items.size() < 2) {
      errors_->Add(branches->Error("branches: expected a list of two or more blocks"));
      return;
    }
    for (const ConfigNode& b : branches->items) {
      b.read = true;
      if (b.kind == ConfigNode::Kind::kScalar) {
        layer->branches.push_back(ReadBlock(b.Text(), b.where, nullptr, shape_, errors_));
      } else if (b.kind == ConfigNode::Kind::kMap && b.entries.size() == 1) {
        layer->branches.push_back(ReadBlock(b.entries[0].key, b.entries[0].key_where,
                                            &b.entries[0].value, shape_, errors_));
      } else {
        b.MarkRead();
        errors_->Add(b.Error("a branch is one block, such as gla or gla: {heads: 2}"));
      }
    }
  }

  BlockShape shape_;
  ErrorList* errors_;
};

ConfigNode MapOf(const std::string& key, ConfigNode value) {
  ConfigNode map;
  map.kind = ConfigNode::Kind::kMap;
  map.entries.push_back({key, {}, std::move(value)});
  return map;
}

ConfigNode PrintBranch(const BranchConfig& b) {
  FieldList fields;
  b.config->Fields(fields);
  return MapOf(b.type->name, PrintMap(fields));
}

}  // namespace

void LayerConfig::Fields(FieldList& f) {
  f.Add("norm", norm,
        {{"pre", NormPlace::kPre},
         {"post", NormPlace::kPost},
         {"sandwich", NormPlace::kSandwich},
         {"none", NormPlace::kNone}},
        "where the layer normalises");
  f.Add("residual_scale", residual_scale, AnyNumber(), "multiplies the block's output");
  f.Add("recompute", recompute, "keep no activations; run the layer again in the backward pass");
  f.Add("share", share, "layers of one name have one set of weights");
  f.Add("name", name, "for later layers to read from");
  f.Add("input", input, "read that layer's output in place of the stream");
}

void ModelConfig::Fields(FieldList& f) {
  f.Add("d_model", d_model, Between(1, kMaxModelWidth), "width of the residual stream");
  f.Add("vocab", vocab, "bytes, or the path of a tokenizer.json");
  f.Add("tie_embeddings", tie_embeddings, "the head is the embedding");
  f.Add("norm", norm, {{"rms", NormKind::kRms}, {"layer", NormKind::kLayer}}, "kind of all norms");
  f.Add("norm_eps", norm_eps, Positive(), "added to the variance");
}

ModelConfig ReadModelConfig(const ConfigNode& model, ErrorList* errors) {
  model.read = true;
  ModelConfig config;
  MapReader reader(model, "model", errors);
  FieldList fields;
  config.Fields(fields);
  reader.TakeFields(fields);
  const ConfigNode* list = reader.Require("layers", "the layer list");
  reader.Finish();
  if (list == nullptr || !errors->empty()) return config;
  LayerReader layers(config.d_model, errors);
  layers.ReadList(*list);
  if (errors->empty()) layers.CheckNames(*list);
  config.layers = std::move(layers.layers);
  return config;
}

ConfigNode PrintModelConfig(const ModelConfig& config) {
  ModelConfig copy = config;
  FieldList fields;
  copy.Fields(fields);
  ConfigNode model = PrintMap(fields);
  ConfigNode list;
  list.kind = ConfigNode::Kind::kList;
  for (LayerConfig& layer : copy.layers) {
    ConfigNode item;
    if (layer.branches.size() == 1) {
      item = PrintBranch(layer.branches[0]);
    } else {
      ConfigNode branches;
      branches.kind = ConfigNode::Kind::kList;
      for (const BranchConfig& b : layer.branches) branches.items.push_back(PrintBranch(b));
      FieldList combine;
      combine.Add("combine", layer.combine,
                  {{"sum", Join::kSum}, {"mean", Join::kMean}, {"concat", Join::kConcat}}, "");
      ConfigNode parallel = PrintMap(combine);
      parallel.entries.push_back({"branches", {}, std::move(branches)});
      item = MapOf("parallel", std::move(parallel));
    }
    FieldList around;
    layer.Fields(around);
    for (ConfigNode::Entry& e : PrintMap(around).entries) item.entries.push_back(std::move(e));
    list.items.push_back(std::move(item));
  }
  model.entries.push_back({"layers", {}, std::move(list)});
  return model;
}

}  // namespace tessera
