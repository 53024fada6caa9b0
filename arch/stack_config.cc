#include "arch/stack_config.h"

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
                       ErrorList* errors) {
  BranchConfig branch{.type = FindBlock(name), .where = where};
  if (branch.type == nullptr) {
    if (keys != nullptr) keys->MarkRead();
    errors->Add(absl::InvalidArgumentError(absl::StrCat(
        where.ToString(), ": ", UnknownName("block", name, "a layer", BlockNames()),
        name.find(':') == std::string::npos ? ""
                                            : "; a block with keys is written {" + name + "}")));
    return branch;
  }
  branch.config = branch.type->make_config();
  if (keys == nullptr) return branch;
  FieldList fields;
  branch.config->Fields(fields);
  keys->MarkRead();
  ReadMap(*keys, fields, name, errors);
  return branch;
}

void AddCombine(FieldList& f, LayerConfig& layer) {
  f.Add("combine", layer.combine,
        {{"sum", Join::kSum}, {"mean", Join::kMean}, {"concat", Join::kConcat}},
        "how the branches become one");
}

int64_t DepthInside(const LayerConfig& layer) {
  int64_t depth = 0;
  for (const BranchConfig& b : layer.branches)
    if (b.config != nullptr)
      for (const HeldLayers& held : b.config->Layers())
        depth = SaturatingSum(depth, CheckedProduct({held.times, held.layers->Depth()}));
  return depth;
}

class ListReader {
 public:
  ListReader(absl::string_view key, std::vector<LayerConfig>* layers, ErrorList* errors)
      : key_(key), layers_(layers), errors_(errors) {}

  void ReadList(const ConfigNode& list) {
    list.read = true;
    if (list.kind != ConfigNode::Kind::kList || list.items.empty()) {
      list.MarkRead();
      errors_->Add(list.Error(
          absl::StrCat(key_, ": expected a list of layers such as [attention, mlp], got ",
                       list.kind == ConfigNode::Kind::kList ? "an empty one" : list.KindName())));
      return;
    }
    for (const ConfigNode& item : list.items) ReadItem(item);
    if (errors_->empty() && depth() > kMaxLayers)
      errors_->Add(list.Error(absl::StrCat(
          key_, ": more than ", kMaxLayers,
          " layers, with those inside of layers, and one that runs n times counted n times")));
  }

 private:
  void Push(LayerConfig layer) {
    // What lies inside of layers counts as well, so that lists in lists end in time, too.
    inner_ = SaturatingSum(inner_, DepthInside(layer));
    layers_->push_back(std::move(layer));
  }

  int64_t depth() const { return SaturatingSum(inner_, static_cast<int64_t>(layers_->size())); }

  void ReadItem(const ConfigNode& item) {
    item.read = true;
    if (depth() >= kMaxLayers) {
      item.MarkRead();
      errors_->Add(item.Error(absl::StrCat("more than ", kMaxLayers, " layers")));
      return;
    }
    if (item.kind == ConfigNode::Kind::kScalar) {
      LayerConfig layer;
      layer.branches = {ReadBlock(item.Text(), item.where, nullptr, errors_)};
      Push(std::move(layer));
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
      if (!layer.branches.empty()) Push(std::move(layer));
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
    layer.branches = {ReadBlock(rest[0]->key, rest[0]->key_where, &rest[0]->value, errors_)};
    Push(std::move(layer));
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
    AddCombine(fields, *layer);
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
        layer->branches.push_back(ReadBlock(b.Text(), b.where, nullptr, errors_));
      } else if (b.kind == ConfigNode::Kind::kMap && b.entries.size() == 1) {
        layer->branches.push_back(
            ReadBlock(b.entries[0].key, b.entries[0].key_where, &b.entries[0].value, errors_));
      } else {
        b.MarkRead();
        errors_->Add(b.Error("a branch is one block, such as gla or gla: {heads: 2}"));
      }
    }
  }

  std::string key_;
  std::vector<LayerConfig>* layers_;
  int64_t inner_ = 0;
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

ConfigNode PrintBlocks(LayerConfig& layer) {
  if (layer.branches.size() == 1) return PrintBranch(layer.branches[0]);
  ConfigNode branches;
  branches.kind = ConfigNode::Kind::kList;
  for (const BranchConfig& b : layer.branches) branches.items.push_back(PrintBranch(b));
  FieldList combine;
  AddCombine(combine, layer);
  ConfigNode parallel = PrintMap(combine);
  parallel.entries.push_back({"branches", {}, std::move(branches)});
  return MapOf("parallel", std::move(parallel));
}

}  // namespace

void LayerConfig::Fields(FieldList& f) {
  f.Add("norm", norm,
        {{"pre", NormPlace::kPre},
         {"post", NormPlace::kPost},
         {"sandwich", NormPlace::kSandwich},
         {"none", NormPlace::kNone}},
        "where the layer normalises");
  f.Add("residual", residual, "false: the block's output takes the stream's place");
  f.Add("residual_scale", residual_scale, AnyNumber(), "multiplies the block's output")
      .OnlyWith("`residual: true`", [this] { return residual; });
  f.Add("dropout", dropout, FromBelow(0, 1),
        "of the block's output in training; none is the model's");
  f.Add("recompute", recompute, "keep no activations; run the layer again in the backward pass");
  f.Add("share", share, "layers of one name have one set of weights");
  f.Add("lora", lora, "adapters of its own beside the weights that it shares (arXiv:2411.15242)")
      .OnlyWith("`share: NAME`, weights that other layers use", [this] { return !share.empty(); });
  f.Add("name", name, "for later layers to read from");
  f.Add("input", input, "read that layer's output in place of the stream");
}

void StackConfig::Read(const ConfigNode& node, absl::string_view key, ErrorList* errors) {
  list.clear();
  ListReader(key, &list, errors).ReadList(node);
}

ConfigNode StackConfig::Print() const {
  ConfigNode printed;
  printed.kind = ConfigNode::Kind::kList;
  for (LayerConfig layer : list) {
    ConfigNode item = PrintBlocks(layer);
    FieldList around;
    layer.Fields(around);
    for (ConfigNode::Entry& e : PrintMap(around).entries) item.entries.push_back(std::move(e));
    printed.items.push_back(std::move(item));
  }
  return printed;
}

int64_t StackConfig::Depth() const {
  int64_t depth = static_cast<int64_t>(list.size());
  for (const LayerConfig& layer : list) depth = SaturatingSum(depth, DepthInside(layer));
  return depth;
}

}  // namespace tessera
