#include <cstring>

#include "ops/ops.h"

namespace tessera {
namespace {

void Zero(const Tensor& t) {
  if (t.raw() == nullptr) return;
  const int64_t size = SizeOf(t.dtype());
  for (int64_t r = 0; r < t.rows(); ++r)
    std::memset(t.raw() + r * t.stride() * size, 0, static_cast<size_t>(t.dim(-1) * size));
}

}  // namespace

std::vector<Var> Split(Context& ctx, const Var& x, std::span<const int64_t> widths) {
  std::vector<Var> parts;
  std::vector<GradRef> nodes;
  int64_t begin = 0;
  for (const int64_t width : widths) {
    GradRef node;
    if (ctx.recording() && x.grad() != nullptr) {
      node = std::make_shared<GradNode>();
      node->shape = x.shape();
      node->shape.Set(-1, width);
      node->dtype = x.dtype();
      node->parent = x.grad();
      node->begin = begin;
    }
    parts.push_back(Var(x.value().Slice(begin, width), node));
    nodes.push_back(node);
    begin += width;
  }
  TESSERA_CHECK(begin == x.dim(-1), "parts of %ld columns of %s", begin,
                x.shape().ToString().c_str());
  if (!ctx.recording() || x.grad() == nullptr) return parts;
  // By now every part that is used has written its columns; the others are zero, unless the whole
  // was written before.
  ctx.Record([nodes, whole = x.grad()](Context& ctx) {
    bool any = false;
    for (const GradRef& n : nodes) any = any || n->started;
    if (!any) return;
    for (const GradRef& n : nodes)
      if (const GradSlot part = n->started ? GradSlot{} : ctx.GradOf(n);
          part.wanted() && part.mode == Grad::kOverwrite)
        Zero(part.tensor);
    whole->started = true;
  });
  return parts;
}

}  // namespace tessera
