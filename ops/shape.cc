#include "kernels/copy.h"
#include "kernels/device/memory.h"
#include "ops/ops.h"

namespace tessera {
namespace {

void ZeroRows(Context& ctx, const Tensor& t) {
  const int64_t size = SizeOf(t.dtype());
  Zero(ctx.device(), t.raw(), t.rows(), t.stride() * size, t.dim(-1) * size);
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
        ZeroRows(ctx, part.tensor);
    whole->started = true;
  });
  return parts;
}

namespace {

void ScaleInto(Context& ctx, const Tensor& x, float factor, const Tensor& y, Grad mode) {
  ByDType(x.dtype(), [&](auto tag) {
    using T = decltype(tag);
    ctx.Run(CopyArgs<T>{.x = x.data<T>(),
                        .x_stride = x.stride(),
                        .y = y.data<T>(),
                        .y_stride = y.stride(),
                        .mode = mode,
                        .factor = factor,
                        .rows = x.rows(),
                        .C = x.dim(-1)});
  });
}

}  // namespace

Var Scale(Context& ctx, const Var& x, float factor) {
  Tensor y = ctx.New(x.shape(), x.dtype());
  ScaleInto(ctx, x.value(), factor, y, Grad::kOverwrite);
  return ctx.Result(y, {x}, [factor, to_x = x.grad()](Context& ctx, const Tensor& dy) {
    const GradSlot dx = ctx.GradOf(to_x);
    ScaleInto(ctx, dy, factor, dx.tensor, dx.mode);
  });
}

}  // namespace tessera
