#include <algorithm>

#include "kernels/pointwise/copy.h"
#include "kernels/rows/cross_entropy.h"
#include "ops/ends.h"
#include "ops/product_args.h"

namespace tessera {
namespace {

// Rows whose logits are worked on together: some megabytes, which stay in cache while they are
// turned into gradients, but enough rows that packing the head, and adding to its gradient, once a
// block costs little. Of large vocabularies fewer, so that a block is no more than kMostBytes as
// long as 32 rows are not.
int64_t BlockRows(int64_t rows, int64_t V) {
  constexpr int64_t kBytes = int64_t{2} << 20, kMostBytes = int64_t{128} << 20,
                    kRow = sizeof(float);
  const int64_t many = std::clamp<int64_t>(kBytes / kRow / V, 512, 4096);
  const int64_t most = std::max<int64_t>(kMostBytes / kRow / V / 32 * 32, 32);
  return std::min({rows, many, most});
}

// x += scale[0] d for a gradient that was computed before its cotangent was known.
template <class T>
void AddScaled(Context& ctx, const Tensor& d, const Tensor& scale, const GradSlot& to) {
  if (!to.wanted()) return;
  ctx.Run(CopyArgs<T>{.x = d.data<T>(),
                      .x_stride = d.stride(),
                      .y = to.data<T>(),
                      .y_stride = to.stride(),
                      .mode = to.mode,
                      .scaled = true,
                      .scale = scale.data<float>(),
                      .rows = d.rows(),
                      .C = d.dim(-1)});
}

}  // namespace

Var HeadLoss(Context& ctx, const Var& hidden, const Var& head, const Tensor& targets) {
  const int64_t R = hidden.rows(), D = hidden.dim(-1), V = head.dim(0);
  TESSERA_CHECK(head.dim(1) == D && targets.elements() == R, "head %s, hidden %s, %ld targets",
                head.shape().ToString().c_str(), hidden.shape().ToString().c_str(),
                targets.elements());
  const bool dhidden_wanted = ctx.recording() && hidden.grad() != nullptr;
  const bool dhead_wanted = ctx.recording() && head.grad() != nullptr;
  const bool gradient = dhidden_wanted || dhead_wanted;
  const Precision precision = PrecisionOf(hidden.dtype());
  Tensor loss = ctx.New({1}, DType::kF32), weight = ctx.New({1}, DType::kF32);
  const Tensor nll = ctx.New({R}, DType::kF32);
  const Tensor dhidden = dhidden_wanted ? ctx.New({R, D}, hidden.dtype()) : Tensor();
  const Tensor dhead = dhead_wanted ? ctx.New({V, D}, DType::kF32) : Tensor();
  ctx.Run(TargetWeightArgs{
      .target = targets.data<int32_t>(), .weight = weight.data<float>(), .rows = R});
  const int64_t block = BlockRows(R, V);
  const Tensor all_logits = ctx.New({block, V}, DType::kF32);
  for (int64_t first = 0; first < R; first += block) {
    const int64_t rows = std::min(block, R - first);
    Factor h = FactorOf(hidden.value());
    if (h.data != nullptr)
      h.data = static_cast<const char*>(h.data) + first * h.stride * SizeOf(h.dtype);
    const Product logits = ProductOf(all_logits);
    ctx.Run(MatmulArgs{.a = h,
                       .b = FactorOf(head.value(), Order::kTransposed),
                       .c = logits,
                       .M = rows,
                       .N = V,
                       .K = D,
                       .precision = precision});
    const auto at = [&](float* p) { return p == nullptr ? p : p + first; };
    ctx.Run(CrossEntropyArgs{
        .logits = all_logits.data<float>(),
        .target = targets.raw() == nullptr ? nullptr : targets.data<int32_t>() + first,
        .nll = at(nll.data<float>()),
        .weight = weight.data<float>(),
        .gradient = gradient,
        .rows = rows,
        .V = V});
    if (dhidden_wanted) {
      Product d = ProductOf(dhidden);
      if (d.data != nullptr) d.data = static_cast<char*>(d.data) + first * D * SizeOf(d.dtype);
      ctx.Run(MatmulArgs{.a = FactorOf(all_logits),
                         .b = FactorOf(head.value()),
                         .c = d,
                         .M = rows,
                         .N = D,
                         .K = V,
                         .precision = precision});
    }
    if (dhead_wanted)
      ctx.Run(MatmulArgs{.a = FactorOf(all_logits, Order::kTransposed),
                         .b = h,
                         .c = ProductOf(dhead, first == 0 ? Grad::kOverwrite : Grad::kAccumulate),
                         .M = V,
                         .N = D,
                         .K = rows,
                         .precision = precision});
  }
  ctx.Run(LossSumArgs{.nll = nll.data<float>(),
                      .weight = weight.data<float>(),
                      .loss = loss.data<float>(),
                      .rows = R});
  return ctx.Result(
      loss, {hidden, head},
      [=, to_hidden = hidden.grad(), to_head = head.grad()](Context& ctx, const Tensor& dloss) {
        ByDType(dhidden_wanted ? dhidden.dtype() : DType::kF32, [&](auto tag) {
          AddScaled<decltype(tag)>(ctx, dhidden, dloss, ctx.GradOf(to_hidden));
        });
        AddScaled<float>(ctx, dhead, dloss, ctx.GradOf(to_head));
      });
}

}  // namespace tessera
