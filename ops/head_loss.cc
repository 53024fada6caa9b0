#include <algorithm>
#include <vector>

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

// One term of the logits with its gradients, undefined where they are not wanted.
struct Term {
  HeadTerm of;
  Tensor dx, dweight;

  Term(Context& ctx, const HeadTerm& term) : of(term) {
    if (!ctx.recording()) return;
    if (of.x.grad() != nullptr) dx = ctx.New({of.x.rows(), of.x.dim(-1)}, of.x.dtype());
    if (of.weight.grad() != nullptr) dweight = ctx.New(of.weight.shape(), DType::kF32);
  }
  // Rows of x, or of its gradient, from `first` on.
  Factor RowsOfX(int64_t first) const {
    Factor x = FactorOf(of.x.value());
    if (x.data != nullptr)
      x.data = static_cast<const char*>(x.data) + first * x.stride * SizeOf(x.dtype);
    return x;
  }
  Product RowsOfGrad(int64_t first) const {
    Product d = ProductOf(dx);
    if (d.data != nullptr) d.data = static_cast<char*>(d.data) + first * d.stride * SizeOf(d.dtype);
    return d;
  }
};

// A block of rows of all terms: their logits, then, of the gradient that took the logits' place,
// the shares of x and weight.
class RowBlock {
 public:
  RowBlock(Context& ctx, const std::vector<Term>& terms, const Tensor& logits, int64_t first,
           int64_t rows)
      : ctx_(ctx), terms_(terms), logits_(logits), first_(first), rows_(rows) {}

  void Logits() const {
    for (size_t i = 0; i < terms_.size(); ++i)
      ctx_.Run(MatmulArgs{.a = terms_[i].RowsOfX(first_),
                          .b = FactorOf(terms_[i].of.weight.value(), Order::kTransposed),
                          .c = ProductOf(logits_, i == 0 ? Grad::kOverwrite : Grad::kAccumulate),
                          .M = rows_,
                          .N = logits_.dim(-1),
                          .K = terms_[i].of.x.dim(-1),
                          .precision = PrecisionOf(terms_[i].of.x.dtype())});
  }

  void Gradients() const {
    for (const Term& term : terms_) {
      const int64_t V = logits_.dim(-1), D = term.of.x.dim(-1);
      const Precision precision = PrecisionOf(term.of.x.dtype());
      if (term.dx.defined())
        ctx_.Run(MatmulArgs{.a = FactorOf(logits_),
                            .b = FactorOf(term.of.weight.value()),
                            .c = term.RowsOfGrad(first_),
                            .M = rows_,
                            .N = D,
                            .K = V,
                            .precision = precision});
      if (term.dweight.defined())
        ctx_.Run(MatmulArgs{
            .a = FactorOf(logits_, Order::kTransposed),
            .b = term.RowsOfX(first_),
            .c = ProductOf(term.dweight, first_ == 0 ? Grad::kOverwrite : Grad::kAccumulate),
            .M = V,
            .N = D,
            .K = rows_,
            .precision = precision});
    }
  }

 private:
  Context& ctx_;
  const std::vector<Term>& terms_;
  const Tensor& logits_;
  int64_t first_, rows_;
};

}  // namespace

Var HeadLoss(Context& ctx, const Var& hidden, const Var& head, const Tensor& targets) {
  const HeadTerm term = {hidden, head};
  return HeadLoss(ctx, std::span(&term, 1), targets);
}

Var HeadLoss(Context& ctx, std::span<const HeadTerm> sum, const Tensor& targets) {
  const int64_t R = sum[0].x.rows(), V = sum[0].weight.dim(0);
  std::vector<Term> terms;
  std::vector<Var> inputs;
  bool gradient = false;
  for (const HeadTerm& t : sum) {
    TESSERA_CHECK(t.weight.dim(1) == t.x.dim(-1) && t.weight.dim(0) == V && t.x.rows() == R &&
                      targets.elements() == R,
                  "head %s, hidden %s, %ld targets", t.weight.shape().ToString().c_str(),
                  t.x.shape().ToString().c_str(), targets.elements());
    terms.emplace_back(ctx, t);
    gradient = gradient || terms.back().dx.defined() || terms.back().dweight.defined();
    inputs.insert(inputs.end(), {t.x, t.weight});
  }
  Tensor loss = ctx.New({1}, DType::kF32), weight = ctx.New({1}, DType::kF32);
  const Tensor nll = ctx.New({R}, DType::kF32);
  ctx.Run(TargetWeightArgs{
      .target = targets.data<int32_t>(), .weight = weight.data<float>(), .rows = R});
  const int64_t block = BlockRows(R, V);
  const Tensor logits = ctx.New({block, V}, DType::kF32);
  for (int64_t first = 0; first < R; first += block) {
    const int64_t rows = std::min(block, R - first);
    const RowBlock of_rows(ctx, terms, logits, first, rows);
    of_rows.Logits();
    ctx.Run(CrossEntropyArgs{
        .logits = logits.data<float>(),
        .target = targets.raw() == nullptr ? nullptr : targets.data<int32_t>() + first,
        .nll = nll.raw() == nullptr ? nullptr : nll.data<float>() + first,
        .weight = weight.data<float>(),
        .gradient = gradient,
        .rows = rows,
        .V = V});
    of_rows.Gradients();
  }
  ctx.Run(LossSumArgs{.nll = nll.data<float>(),
                      .weight = weight.data<float>(),
                      .loss = loss.data<float>(),
                      .rows = R});
  for (Term& t : terms) t.of = {Var(Tensor(), t.of.x.grad()), Var(Tensor(), t.of.weight.grad())};
  return ctx.Results({loss}, inputs, [terms](Context& ctx, std::span<const Tensor> dloss) {
    for (const Term& t : terms) {
      if (t.dx.defined())
        ByDType(t.dx.dtype(), [&](auto tag) {
          AddScaled<decltype(tag)>(ctx, t.dx, dloss[0], ctx.GradOf(t.of.x.grad()));
        });
      if (t.dweight.defined())
        AddScaled<float>(ctx, t.dweight, dloss[0], ctx.GradOf(t.of.weight.grad()));
    }
  })[0];
}

}  // namespace tessera
