#include "ops/shape.h"

#include "kernels/pointwise/copy.h"
#include "ops/pointwise.h"

namespace tessera {
namespace {

// y = factor x, or added to y, row by row.
void CopyRows(Context& ctx, const Tensor& x, const Tensor& y, float factor = 1,
              Grad mode = Grad::kOverwrite) {
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

// x, or a copy without gaps between its rows.
Tensor WithoutGaps(Context& ctx, const Tensor& x) {
  if (x.contiguous()) return x;
  const Tensor y = ctx.New(x.shape(), x.dtype());
  CopyRows(ctx, x, y);
  return y;
}

}  // namespace

std::vector<Var> Split(Context& ctx, const Var& x, std::span<const int64_t> widths) {
  const GradRef whole = ctx.recording() ? x.grad() : nullptr;
  std::vector<Var> parts;
  int64_t begin = 0;
  for (const int64_t width : widths) {
    parts.push_back(Var(x.value().Slice(begin, width), ViewOf(whole, begin, width)));
    begin += width;
  }
  TESSERA_CHECK(begin == x.dim(-1), "parts of %ld columns of %s", begin,
                x.shape().ToString().c_str());
  // By then every part that is used has written its columns.
  if (whole != nullptr) ctx.Record([whole](Context& ctx) { ctx.CompleteGrad(whole); });
  return parts;
}

Var Scale(Context& ctx, const Var& x, float factor) {
  Tensor y = ctx.New(x.shape(), x.dtype());
  CopyRows(ctx, x.value(), y, factor);
  return ctx.Result(y, {x}, [factor, to_x = x.grad()](Context& ctx, const Tensor& dy) {
    const GradSlot dx = ctx.GradOf(to_x);
    CopyRows(ctx, dy, dx.tensor, factor, dx.mode);
  });
}

Var Reshape(Context& ctx, const Var& x, const Shape& shape) {
  TESSERA_CHECK(shape.elements() == x.value().elements(), "%s as %s", x.shape().ToString().c_str(),
                shape.ToString().c_str());
  const Tensor y = WithoutGaps(ctx, x.value()).Reshape(shape);
  return ctx.Result(y, {x}, [to_x = x.grad(), of = x.shape()](Context& ctx, const Tensor& dy) {
    ctx.GiveGrad(to_x, WithoutGaps(ctx, dy).Reshape(of));
  });
}

Var Concat(Context& ctx, std::span<const Var> parts) {
  TESSERA_CHECK(!parts.empty(), "nothing to join");
  Shape shape = parts[0].shape();
  int64_t columns = 0;
  for (const Var& p : parts) {
    TESSERA_CHECK(p.rows() == parts[0].rows() && p.dtype() == parts[0].dtype(),
                  "columns of %s beside those of %s", p.shape().ToString().c_str(),
                  shape.ToString().c_str());
    columns += p.dim(-1);
  }
  shape.Set(-1, columns);
  const Tensor y = ctx.New(shape, parts[0].dtype());
  std::vector<std::pair<GradRef, int64_t>> to;  // and the width of each
  int64_t begin = 0;
  for (const Var& p : parts) {
    CopyRows(ctx, p.value(), y.Slice(begin, p.dim(-1)));
    to.emplace_back(p.grad(), p.dim(-1));
    begin += p.dim(-1);
  }
  const std::vector<Var> inputs(parts.begin(), parts.end());
  return ctx.Results({y}, inputs, [to](Context& ctx, std::span<const Tensor> dy) {
    int64_t begin = 0;
    for (const auto& [ref, width] : to) {
      if (const GradSlot dx = ctx.GradOf(ref); dx.wanted())
        CopyRows(ctx, dy[0].Slice(begin, width), dx.tensor, 1, dx.mode);
      begin += width;
    }
  })[0];
}

Var ConcatTime(Context& ctx, std::span<const Var> parts) {
  TESSERA_CHECK(!parts.empty(), "nothing to join");
  const int64_t B = parts[0].dim(0), C = parts[0].dim(2);
  std::vector<Var> rows;
  int64_t T = 0;
  for (const Var& p : parts) {
    TESSERA_CHECK(p.dim(0) == B && p.dim(2) == C, "tokens of %s after those of %s",
                  p.shape().ToString().c_str(), parts[0].shape().ToString().c_str());
    rows.push_back(Reshape(ctx, p, {B, p.dim(1) * C}));
    T += p.dim(1);
  }
  return Reshape(ctx, Concat(ctx, rows), {B, T, C});
}

Var SliceTime(Context& ctx, const Var& x, int64_t begin, int64_t length) {
  const int64_t B = x.dim(0), T = x.dim(1), C = x.dim(2);
  TESSERA_CHECK(begin >= 0 && length >= 1 && begin + length <= T, "tokens [%ld, %ld) of %ld", begin,
                begin + length, T);
  const int64_t widths[] = {begin * C, length * C, (T - begin - length) * C};
  return Reshape(ctx, Split(ctx, Reshape(ctx, x, {B, T * C}), widths)[1], {B, length, C});
}

}  // namespace tessera
