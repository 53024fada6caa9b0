#include "arch/placement.h"

#include <algorithm>
#include <map>
#include <set>
#include <span>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "core/sizes.h"

namespace tessera {
namespace {

// "2 x 8, 2 x 8": the values of a port, each for one token.
std::string ShapesOf(const Port& port) {
  std::vector<std::string> shapes;
  for (const auto& shape : port.values) shapes.push_back(absl::StrJoin(shape, " x "));
  return absl::StrJoin(shapes, ", ");
}

std::string ReachOf(const Port& port) {
  if (port.reach == 0) return "tokens that it keeps no state of";
  return port.reach < 0 ? "all tokens" : absl::StrCat("the last ", port.reach, " tokens");
}

// The path of something inside of `path`.
std::string Inside(const std::string& path, const std::string& name) {
  return path.empty() || name[0] == '[' ? path + name : path + "." + name;
}

class Placer {
 public:
  explicit Placer(ErrorList* errors) : errors_(errors), all_read_(errors->empty()) {}

  // Gives each layer of the stack its path, and lists them in `order_`.
  void NamePaths(StackConfig* stack, const std::string& path, const std::string& key) {
    for (size_t i = 0; i < stack->list.size(); ++i) {
      LayerConfig& l = stack->list[i];
      const bool parallel = l.branches.size() > 1;
      l.place = absl::StrCat(key, "[", i, "].", parallel ? "parallel" : NameOf(l.branches[0]));
      l.path = Inside(path, l.place);
      order_.push_back(&l);
      for (size_t b = 0; b < l.branches.size(); ++b) {
        BranchConfig& branch = l.branches[b];
        branch.path = parallel ? absl::StrCat(l.path, "[", b, "].", NameOf(branch)) : l.path;
        NameInside(&branch);
      }
    }
  }
  void NameInside(BranchConfig* branch) {
    if (branch->config == nullptr) return;
    for (const HeldLayers& held : branch->config->Layers())
      NamePaths(held.layers, branch->path, held.key);
  }

  void PlaceLayers(StackConfig* stack, BlockShape shape) {
    visible_.emplace_back();
    for (LayerConfig& l : stack->list) {
      shape.index = index_++;
      l.outside.clear();
      l.output_address.clear();
      l.input_address = l.input.empty() ? "" : AddressOfInput(&l);
      for (BranchConfig& b : l.branches) PlaceBranch(&l, &b, shape);
      if (!l.share.empty()) CheckShare(*stack, l);
      visible_.back().push_back(&l);
    }
    visible_.pop_back();
  }

  // `layer`: that it is a branch of, or null of a block that stands alone.
  void PlaceBranch(LayerConfig* layer, BranchConfig* b, BlockShape shape) {
    if (b->config == nullptr) return;  // told when it was read
    shape.kind_index = kinds_[b->type]++;
    b->shape = shape;
    b->ports = {};
    const auto reads = b->config->Reads(b->shape);
    for (const PortRead& read : reads)
      if (const Source from = layer == nullptr ? Source() : Find(*layer, *b, read); from.branch)
        Join(layer, b, read, from);
    if (const absl::Status fits = b->config->Check(b->shape); !fits.ok())
      AddOnce(absl::StrCat(b->where.ToString(), ": ", b->type->name, ": ", fits.message()));
    for (const HeldLayers& held : b->config->Layers()) PlaceHeld(*b, held);
  }

 private:
  struct Source {
    LayerConfig* layer = nullptr;
    BranchConfig* branch = nullptr;
    Port port;
  };
  using Visible = std::vector<std::vector<LayerConfig*>>;  // of the outermost list first

  static std::string NameOf(const BranchConfig& b) {
    return b.type == nullptr ? "unknown" : b.type->name;
  }

  // What is wrong with a block in a `repeat` is wrong with each copy of it.
  void AddOnce(const std::string& message) {
    if (told_.insert(message).second) errors_->Add(absl::InvalidArgumentError(message));
  }
  void Bad(const BranchConfig& b, const std::string& what) {
    errors_->Add(absl::InvalidArgumentError(absl::StrCat(b.where.ToString(), ": ", what)));
  }

  void PlaceHeld(const BranchConfig& b, const HeldLayers& held) {
    if (held.layers->list.empty()) {
      if (all_read_)
        AddOnce(absl::StrCat(b.where.ToString(), ": ", b.type->name, ": expected the key '",
                             held.key, "': a list of layers such as [attention, mlp]"));
      return;
    }
    BlockShape shape = b.shape;
    shape.reads.clear();
    Visible outside;
    if (held.reshape != nullptr) {
      held.reshape(&shape);
      outside.swap(visible_);
    }
    const int64_t first = index_;
    PlaceLayers(held.layers, shape);
    index_ = SaturatingSum(first, CheckedProduct({held.times, index_ - first}));
    if (held.reshape != nullptr) visible_.swap(outside);
  }

  // The nearest visible layer for which `fits`; null without.
  template <class Fits>
  LayerConfig* Nearest(const Fits& fits) const {
    for (auto list = visible_.rbegin(); list != visible_.rend(); ++list)
      for (auto l = list->rbegin(); l != list->rend(); ++l)
        if (fits(**l)) return *l;
    return nullptr;
  }
  LayerConfig* Named(const std::string& name) const {
    return Nearest([&](const LayerConfig& l) { return l.name == name; });
  }

  static bool IsBelow(const LayerConfig& l, const LayerConfig& holder) {
    return l.path.size() > holder.path.size() && l.path.starts_with(holder.path) &&
           (l.path[holder.path.size()] == '.' || l.path[holder.path.size()] == '[');
  }

  // Why no visible layer has the name.
  std::string NoneNamed(const LayerConfig& l, const std::string& name) const {
    std::string text = absl::StrCat("no earlier layer has the name '", name, "'");
    const auto self = std::find(order_.begin(), order_.end(), &l);
    for (auto other = order_.begin(); other != order_.end(); ++other) {
      if ((*other)->name != name) continue;
      if (IsBelow(l, **other))
        return absl::StrCat(text, "; ", (*other)->path, ", which has it, holds this one");
      if (other >= self)
        return absl::StrCat(text, "; ", (*other)->path, ", which has it, is not before this one");
      return absl::StrCat(text, " that can be seen from here; ", (*other)->path,
                          ", which has it, is in another list of layers");
    }
    return text;
  }

  std::string AddressOfInput(LayerConfig* l) {
    LayerConfig* const source = Named(l->input);
    if (source == nullptr) {
      if (all_read_) Bad(l->branches[0], l->path + ": input: " + NoneNamed(*l, l->input));
      return "";
    }
    source->output_address = source->path + ":output";
    AddOutside(l, *source, source->output_address);
    return source->output_address;
  }

  // The one branch of a layer that provides the port, if any; `several` if more do.
  static Source Provider(LayerConfig* l, const std::string& port, bool* several) {
    Source found;
    for (BranchConfig& b : l->branches) {
      if (b.config == nullptr) continue;
      for (Port& p : b.config->Provides(b.shape)) {
        if (p.name != port) continue;
        *several = found.branch != nullptr;
        found = {l, &b, std::move(p)};
      }
    }
    return found;
  }

  Source Find(const LayerConfig& l, const BranchConfig& b, const PortRead& read) {
    const std::string& port = read.port.name;
    LayerConfig* layer = Named(read.from);
    bool several = false;
    if (layer == nullptr && read.from == "first") {
      layer = First(b.type);
      if (layer == nullptr) return {};  // this is the first itself
    } else if (layer == nullptr && read.from == "previous") {
      layer = Nearest(
          [&](LayerConfig& other) { return Provider(&other, port, &several).branch != nullptr; });
      several = false;
      if (layer == nullptr)
        return No(b, absl::StrCat(b.path, ": ", read.key, ": no earlier layer provides ", port));
    } else if (layer == nullptr) {
      return No(b, absl::StrCat(b.path, ": ", read.key, ": ", NoneNamed(l, read.from)));
    }
    const Source source = Provider(layer, port, &several);
    const std::string who =
        absl::StrCat(b.path, ": ", read.key, ": the layer '", read.from, "', ", layer->path, ", ");
    if (several)
      return No(b, absl::StrCat(who, "has several branches that provide ", port,
                                "; read from a layer of one"));
    if (source.branch == nullptr) return No(b, absl::StrCat(who, "provides no ", port));
    if (source.port.values != read.port.values)
      return No(b,
                absl::StrCat(who, "provides ", port, " of ", ShapesOf(source.port),
                             " a token, and this one reads ", ShapesOf(read.port), "; ", read.fix));
    if (source.port.reach >= 0 && (read.port.reach < 0 || read.port.reach > source.port.reach))
      return No(b,
                absl::StrCat(who, "provides ", port, " of ", ReachOf(source.port),
                             ", and this one reads that of ", ReachOf(read.port), "; ", read.fix));
    return source;
  }
  Source No(const BranchConfig& b, const std::string& what) {
    if (all_read_) Bad(b, what);
    return {};
  }

  LayerConfig* First(const BlockType* type) const {
    for (const auto& list : visible_)
      for (LayerConfig* l : list)
        for (const BranchConfig& b : l->branches)
          if (b.type == type) return l;
    return nullptr;
  }

  void Join(LayerConfig* layer, BranchConfig* b, const PortRead& read, const Source& from) {
    const std::string address = from.branch->path + ":" + read.port.name;
    b->shape.reads.insert(read.port.name);
    b->ports.reads[read.port.name] = address;
    from.branch->ports.leaves[read.port.name] = address;
    AddOutside(layer, *from.layer, address);
  }

  // `layer` and the layers that hold it read from the board what is left outside of them.
  void AddOutside(LayerConfig* layer, const LayerConfig& source, const std::string& address) {
    for (LayerConfig* l : order_) {
      if (l != layer && !IsBelow(*layer, *l)) continue;
      if (IsBelow(source, *l)) continue;
      if (std::find(l->outside.begin(), l->outside.end(), address) == l->outside.end())
        l->outside.push_back(address);
    }
  }

  void CheckShare(const StackConfig& stack, const LayerConfig& l) {
    for (const LayerConfig& other : stack.list) {
      if (&other == &l) return;
      if (other.share == l.share && all_read_ && !Alike(other, l))
        Bad(l.branches[0], absl::StrCat(l.path, ": share: ", l.share,
                                        " is the name of another kind of layer, ", other.path));
    }
  }

  // Whether two layers can have one set of weights.
  static bool Alike(const LayerConfig& a, const LayerConfig& b) {
    if (a.branches.size() != b.branches.size() || a.norm != b.norm || a.combine != b.combine)
      return false;
    for (size_t i = 0; i < a.branches.size(); ++i) {
      const BranchConfig &p = a.branches[i], &q = b.branches[i];
      if (p.type != q.type || p.config == nullptr || p.shape.reads != q.shape.reads) return false;
      FieldList x, y;
      p.config->Fields(x);
      q.config->Fields(y);
      if (PrintYamlFlow(PrintMap(x)) != PrintYamlFlow(PrintMap(y))) return false;
      // The layers inside are the same ones and read from where the first do.
      if (!p.config->Layers().empty() && a.outside != b.outside) return false;
    }
    return true;
  }

  ErrorList* errors_;
  const bool all_read_;  // without mistakes, so that each list and name is there
  std::vector<LayerConfig*> order_;
  Visible visible_;
  std::map<const BlockType*, int64_t> kinds_;
  std::set<std::string> told_;
  int64_t index_ = 0;
};

}  // namespace

void Place(StackConfig* stack, const BlockShape& shape, ErrorList* errors) {
  Placer placer(errors);
  placer.NamePaths(stack, "", "layers");
  BlockShape all = shape;
  all.layers = stack->Depth();
  placer.PlaceLayers(stack, all);
}

void PlaceAlone(BranchConfig* block, const BlockShape& shape, ErrorList* errors) {
  Placer placer(errors);
  block->path = "block";
  placer.NameInside(block);
  placer.PlaceBranch(nullptr, block, shape);
}

}  // namespace tessera
