#include "ops/rows.h"

#include "ops/apply.h"

namespace tessera {
namespace {

// The shape of an index with another last dimension after it.
Shape With(const Shape& index, int64_t C) {
  switch (index.rank()) {
    case 1:
      return {index[0], C};
    case 2:
      return {index[0], index[1], C};
    case 3:
      return {index[0], index[1], index[2], C};
    default:
      TESSERA_CHECK(false, "an index of %s", index.ToString().c_str());
  }
}

}  // namespace

Chosen Choose(Context& ctx, const Var& x, int64_t k, const ChooseOptions& options) {
  const bool time = options.axis == ChooseAxis::kTime;
  const int64_t N = time ? x.dim(1) : x.dim(-1), inner = time ? x.dim(2) : 1;
  const int64_t groups = options.groups, kept = options.kept_groups;
  TESSERA_CHECK(groups >= 1 && N % groups == 0 && kept >= 1 && kept <= groups,
                "%ld of %ld groups of %ld scores", kept, groups, N);
  TESSERA_CHECK(k >= 1 && k <= kept * (N / groups) && N <= INT32_MAX,
                "%ld of %ld scores, of which %ld are candidates", k, N, kept * (N / groups));
  return ByDType(x.dtype(), [&](auto tag) {
    const ChooseArgs<decltype(tag)> args{.outer = time ? x.dim(0) : x.rows(),
                                         .N = N,
                                         .inner = inner,
                                         .k = k,
                                         .groups = groups,
                                         .kept_groups = kept,
                                         .axis = options.axis,
                                         .order = options.order};
    const std::vector<Var> out = Apply(ctx, args, {x, Var(options.bias)}, {}, 2);
    Shape shape = x.shape();
    if (time)
      shape = {x.dim(0), inner, k};
    else
      shape.Set(-1, k);
    return Chosen{out[0].value().Reshape(shape), out[1].WithShape(shape)};
  });
}

Var Gather(Context& ctx, const Var& x, const Tensor& index) {
  const bool batched = x.shape().rank() == 3;
  const int64_t G = batched ? x.dim(0) : 1;
  TESSERA_CHECK(!batched || index.dim(0) == G, "an index of %s for rows of %s",
                index.shape().ToString().c_str(), x.shape().ToString().c_str());
  return ByDType(x.dtype(), [&](auto tag) {
    const GatherArgs<decltype(tag)> args{
        .G = G, .rows = index.elements() / G, .n = x.dim(-2), .C = x.dim(-1)};
    return Apply(ctx, args, {x}, {index.Reshape({G, args.rows})})[0].WithShape(
        With(index.shape(), x.dim(-1)));
  });
}

Var Scatter(Context& ctx, const Var& x, const Tensor& index, int64_t n, ScatterTo to) {
  const bool batched = index.shape().rank() > 1;
  const int64_t G = batched ? index.dim(0) : 1, C = x.dim(-1);
  TESSERA_CHECK(x.rows() == index.elements(), "an index of %s for rows of %s",
                index.shape().ToString().c_str(), x.shape().ToString().c_str());
  return ByDType(x.dtype(), [&](auto tag) {
    const ScatterArgs<decltype(tag)> args{
        .G = G, .rows = index.elements() / G, .n = n, .C = C, .to = to};
    return Apply(ctx, args, {x}, {index.Reshape({G, args.rows})})[0].WithShape(
        batched ? Shape{G, n, C} : Shape{n, C});
  });
}

}  // namespace tessera
