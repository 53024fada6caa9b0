#include "kernels/optimiser/muon.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "kernels/device/memory.h"
#include "kernels/product/matmul.h"
#include "train/optimizers/adamw.h"

namespace tessera {
namespace {

// Muon moves matrices, those of experts one by one; AdamW moves the rest. Their updates are of one
// size, so that they share the learning rate and the weight decay.
class Muon final : public Optimizer {
 public:
  explicit Muon(const OptimizerSetup& setup)
      : Optimizer(setup,
                  [](const Parameter& p) {
                    return IsMatrix(p) ? std::vector<std::string>{"muon."} : AdamWRule::States();
                  }),
        adamw_(setup.config),
        momentum_(static_cast<float>(setup.config.Get("momentum"))) {
    int64_t largest = 0, inner = 0;
    size_t next = 0;
    for (const Parameter& p : setup.parameters.all()) {
      if (!p.trainable) continue;
      const OptimizerTensor& t = tensors()[next++];
      if (!IsMatrix(p)) {
        rest_.push_back(t);
        continue;
      }
      const int64_t n = p.shape[-2], m = p.shape[-1];
      matrices_.push_back({t, n, m});
      largest = std::max(largest, n * m);
      inner = std::max(inner, std::min(n, m));
    }
    const auto work = [&](int64_t floats) {
      const Tensor t(setup.arena, {floats}, DType::kF32);
      Zero(device(), t.raw(), t.bytes());
      return t;
    };
    for (Tensor& t : updates_) t = work(largest);
    for (Tensor* t : {&gram_, &square_}) *t = work(inner * inner);
    partial_ = work(2 * OptimizerBlocks(largest));  // doubles
  }

  void Update(const OptimizerStep* step, const StepOutcome* outcome) const override {
    adamw_.Update(device(), rest_, step, outcome);
    for (const Matrices& all : matrices_) {
      const int64_t size = all.n * all.m;
      for (int64_t at = 0; at < all.tensor.size; at += size) Move(all, at, step, outcome);
    }
  }
  void SetCorrections(int64_t steps, OptimizerStep* step) const override {
    adamw_.SetCorrections(steps, step);
  }

 private:
  // One or more matrices [n,m], one after another.
  struct Matrices {
    OptimizerTensor tensor;
    int64_t n, m;
  };
  static bool IsMatrix(const Parameter& p) {
    return p.role == Role::kMatrix || p.role == Role::kExpert;
  }
  Factor Stored(const Tensor& t, int64_t columns, Order order = Order::kPlain) const {
    return {.data = t.raw(), .dtype = DType::kF32, .stride = columns, .order = order};
  }

  // The matrix that begins at element `at`.
  void Move(const Matrices& all, int64_t at, const OptimizerStep* step,
            const StepOutcome* outcome) const {
    const int64_t n = all.n, m = all.m, size = n * m;
    auto* const partial = reinterpret_cast<double*>(partial_.raw());
    Dispatch(device(), MuonMomentumArgs{.gradient = all.tensor.gradient + at,
                                        .momentum = all.tensor.first_state + at,
                                        .update = updates_[0].data<float>(),
                                        .partial = partial,
                                        .size = size,
                                        .beta = momentum_,
                                        .outcome = outcome});
    Dispatch(device(), MuonNormaliseArgs{
                           .update = updates_[0].data<float>(), .partial = partial, .size = size});
    const Tensor& x = Orthogonalised(n, m);
    Dispatch(device(), MuonApplyArgs{.parameter = all.tensor.parameter + at,
                                     .update = x.data<float>(),
                                     .size = size,
                                     .scale = 0.2f * std::sqrt(static_cast<float>(std::max(n, m))),
                                     .weight_decay = all.tensor.weight_decay,
                                     .lr_scale = all.tensor.lr_scale,
                                     .step = step,
                                     .outcome = outcome});
  }

  // Newton-Schulz steps from updates_[0], by whichever side of it is the smaller.
  const Tensor& Orthogonalised(int64_t n, int64_t m) const {
    const bool rows = n <= m;
    const int64_t k = std::min(n, m);
    const auto multiply = [&](const Factor& a, const Factor& b, const Tensor& c, int64_t M,
                              int64_t N, int64_t K) {
      Dispatch(device(), MatmulArgs{.a = a,
                                    .b = b,
                                    .c = {.data = c.raw(), .dtype = DType::kF32, .stride = N},
                                    .M = M,
                                    .N = N,
                                    .K = K});
    };
    const Tensor *x = &updates_[0], *next = &updates_[1];
    for (int i = 0; i < kNewtonSchulzSteps; ++i) {
      if (rows)
        multiply(Stored(*x, m), Stored(*x, m, Order::kTransposed), gram_, k, k, m);
      else
        multiply(Stored(*x, m, Order::kTransposed), Stored(*x, m), gram_, k, k, n);
      multiply(Stored(gram_, k), Stored(gram_, k), square_, k, k, k);
      Dispatch(device(), MuonPolynomialArgs{
                             .gram = gram_.data<float>(), .square = square_.data<float>(), .n = k});
      if (rows)
        multiply(Stored(square_, k), Stored(*x, m), *next, n, m, k);
      else
        multiply(Stored(*x, m), Stored(square_, k), *next, n, m, k);
      std::swap(x, next);
    }
    return *x;
  }

  AdamWRule adamw_;
  float momentum_;
  std::vector<OptimizerTensor> rest_;
  std::vector<Matrices> matrices_;
  Tensor updates_[2], gram_, square_, partial_;  // of one matrix at a time
};

constexpr OptimizerKey kMuonKeys[] = {
    {"momentum", 0.95}, kAdamWKeys[0], kAdamWKeys[1], kAdamWKeys[2]};

}  // namespace

extern constexpr OptimizerType kMuon = {
    "muon", "Muon", "arXiv:2502.16982", kMuonKeys,
    [](const OptimizerSetup& s) { return std::unique_ptr<Optimizer>(new Muon(s)); }};

}  // namespace tessera
