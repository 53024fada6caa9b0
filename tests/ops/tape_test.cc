#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "core/rng.h"
#include "ops/ops.h"
#include "tests/check_fails.h"

// Gradients of values that are used in several ways at once: whole and in parts, twice by one op,
// as a result and an input. Coefficients and seeds are small integers, so that sums are exact in
// any order.

namespace tessera {
namespace {

constexpr int64_t kRows = 2;
using Values = std::vector<float>;

class Tape : public ::testing::Test {
 protected:
  Tape() : arena_(Arena::Backing::kPoisoned, 1 << 20), ctx_(Device::kCpu, &arena_) {
    ctx_.SetRecording(true);
  }

  // Integers that depend on `name` alone.
  Tensor New(const Shape& shape, const std::string& name) {
    const Tensor t = ctx_.New(shape, DType::kF32);
    const Rng rng(3, name);
    for (int64_t i = 0; i < t.elements(); ++i)
      t.data<float>()[i] = static_cast<float>(rng.Below(static_cast<uint64_t>(i), 9)) - 4;
    return t;
  }
  Tensor Rows(int64_t columns, const std::string& name) { return New({kRows, columns}, name); }

  static Values Take(const Tensor& t) {
    Values v;
    for (int64_t i = 0; i < t.elements(); ++i)
      v.push_back(t.data<float>()[i / t.dim(-1) * t.stride() + i % t.dim(-1)]);
    return v;
  }
  static Values GradOf(const Var& v) {
    EXPECT_TRUE(v.grad()->started);
    return v.grad()->started ? Take(v.grad()->grad) : Values();
  }
  // want += factor t in columns from `begin` of `width`.
  static void AddTo(Values* want, int64_t width, int64_t begin, const Tensor& t, float factor = 1) {
    const Values v = Take(t);
    for (size_t i = 0; i < v.size(); ++i) {
      const int64_t row = static_cast<int64_t>(i) / t.dim(-1),
                    c = static_cast<int64_t>(i) % t.dim(-1);
      (*want)[static_cast<size_t>(row * width + begin + c)] += factor * v[i];
    }
  }
  static Values Zeros(int64_t n) { return Values(static_cast<size_t>(n)); }

  Arena arena_;
  Context ctx_;
};

// What contributes to the gradient of some columns of x.
enum class Use : uint8_t { kGradOf, kGiveGrad, kRecompute };

Var Apply(Context& ctx, Use use, const Var& x, const Var& zero) {
  switch (use) {
    case Use::kGradOf:
      return Scale(ctx, x, 2);
    case Use::kGiveGrad:
      return Add(ctx, x, zero, 1);
    case Use::kRecompute:
      return ctx.Recompute({x}, [](Context& c, const Context::Vars& v) {
        return Context::Vars{Scale(c, v[0], 3)};
      })[0];
  }
  return Var();
}
float Factor(Use use) { return use == Use::kGradOf ? 2 : use == Use::kGiveGrad ? 1 : 3; }

TEST_F(Tape, PartsOfPartsOverlapsAndTheWholeInEveryOrder) {
  struct View {
    int64_t begin, width;
  };
  // The whole, two parts, two parts of the second, and two of another cut.
  const std::vector<View> views = {{0, 6}, {0, 2}, {2, 4}, {2, 1}, {3, 3}, {0, 3}, {3, 3}};
  std::vector<size_t> order(views.size());
  std::iota(order.begin(), order.end(), size_t{0});
  const Var zeros[] = {Var(),
                       Var(ctx_.Zeros({kRows, 1}, DType::kF32)),
                       Var(ctx_.Zeros({kRows, 2}, DType::kF32)),
                       Var(ctx_.Zeros({kRows, 3}, DType::kF32)),
                       Var(ctx_.Zeros({kRows, 4}, DType::kF32)),
                       Var(),
                       Var(ctx_.Zeros({kRows, 6}, DType::kF32))};
  int64_t run = 0;
  do {
    // All of them, or some; cut before any is used, or when a part is first needed.
    const size_t used = run % 3 == 0 ? views.size() : static_cast<size_t>(1 + run % 6);
    const bool late = run % 2 == 1;
    const Var x = Leaf(Rows(6, "x"));
    std::vector<Var> outer, inner, other;
    const int64_t outer_widths[] = {2, 4}, inner_widths[] = {1, 3}, other_widths[] = {3, 3};
    const auto view = [&](size_t i) {
      if (i == 0) return x;
      if (outer.empty() && (i <= 4 || !late)) outer = Split(ctx_, x, outer_widths);
      if (inner.empty() && (i == 3 || i == 4 || !late)) inner = Split(ctx_, outer[1], inner_widths);
      if (other.empty() && (i >= 5 || !late)) other = Split(ctx_, x, other_widths);
      return i <= 2 ? outer[i - 1] : i <= 4 ? inner[i - 3] : other[i - 5];
    };
    if (!late) view(1);
    Values want = Zeros(kRows * 6);
    std::vector<std::pair<Var, Tensor>> seeds;
    for (size_t j = 0; j < used; ++j) {
      const size_t i = order[j];
      const Use use = static_cast<Use>((static_cast<int64_t>(i) + run) % 3);
      const Tensor seed = Rows(views[i].width, "seed" + std::to_string(i));
      seeds.emplace_back(Apply(ctx_, use, view(i), zeros[views[i].width]), seed);
      AddTo(&want, 6, views[i].begin, seed, Factor(use));
    }
    ctx_.Backward(seeds);
    ASSERT_EQ(GradOf(x), want) << "run " << run << ", first " << order[0] << " " << order[1] << " "
                               << order[2] << ", used " << used;
    ++run;
  } while (std::next_permutation(order.begin(), order.end()));
}

TEST_F(Tape, OverlappingPartsOfOneVarInOneOp) {
  const int64_t left[] = {3, 3}, middle[] = {1, 3, 2};
  const auto gradient = [&](bool apart) {
    const Var x = Leaf(Rows(6, "x")), twin = apart ? Leaf(Rows(6, "x")) : x;
    const Var a = Split(ctx_, x, left)[0], b = Split(ctx_, twin, middle)[1];
    ctx_.Backward(Gated(ctx_, Activation::kIdentity, a, b), Rows(3, "seed"));
    Values g = GradOf(x);
    if (apart) {
      const Values more = GradOf(twin);
      for (size_t i = 0; i < g.size(); ++i) g[i] += more[i];
    }
    return g;
  };
  EXPECT_EQ(gradient(false), gradient(true));
}

TEST_F(Tape, OneVarAsEveryInputOfAnOp) {
  const Var x = Leaf(Rows(4, "x"));
  const Tensor seed = Rows(4, "seed");
  Values want = Zeros(kRows * 4);
  AddTo(&want, 4, 0, seed, 4);  // x + 3 x
  ctx_.Backward(Add(ctx_, x, x, 3), seed);
  EXPECT_EQ(GradOf(x), want);

  const Var y = Leaf(Rows(4, "y"));
  Values square = Take(y.value());
  for (size_t i = 0; i < square.size(); ++i) square[i] *= 2 * Take(seed)[i];
  ctx_.Backward(Gated(ctx_, Activation::kIdentity, y, y), seed);
  EXPECT_EQ(GradOf(y), square);

  // Rows of the past and of now, of which the last three are kept.
  const Var rows = Leaf(New({1, 2, 3}, "rows"));
  const Tensor of_rows = New({1, 3, 3}, "of rows");
  ctx_.Backward(LastRows(ctx_, rows, rows, 3), of_rows);
  Values sums = Zeros(6);
  const Values g = Take(of_rows);
  for (size_t i = 0; i < 3; ++i) {
    sums[i] = g[3 + i];
    sums[3 + i] = g[i] + g[6 + i];
  }
  EXPECT_EQ(GradOf(rows), sums);
}

// Queries that are the keys and the values, over several of the kernel's key blocks.
TEST_F(Tape, AttentionOfOneVar) {
  const AttentionOptions options{.heads = 1, .kv_heads = 1, .scale = 0.5f};
  const Shape shape{1, 700, 4};
  const auto gradient = [&](bool apart) {
    Arena arena(Arena::Backing::kPoisoned, 1 << 22);
    Context ctx(Device::kCpu, &arena);
    ctx.SetRecording(true);
    std::vector<Var> qkv;
    for (int i = 0; i < 3; ++i) {
      if (i > 0 && !apart) {
        qkv.push_back(qkv[0]);
        continue;
      }
      const Tensor t = ctx.New(shape, DType::kF32);
      for (int64_t j = 0; j < t.elements(); ++j)
        t.data<float>()[j] = static_cast<float>(Rng(5, "q").Normal(static_cast<uint64_t>(j)));
      qkv.push_back(Leaf(t));
    }
    const Tensor seed = ctx.New(shape, DType::kF32);
    for (int64_t j = 0; j < seed.elements(); ++j)
      seed.data<float>()[j] = static_cast<float>(Rng(5, "seed").Normal(static_cast<uint64_t>(j)));
    ctx.Backward(Attention(ctx, qkv[0], qkv[1], qkv[2], {}, options), seed);
    Values sum = GradOf(qkv[0]);
    for (size_t i = 1; i < 3 && apart; ++i) {
      const Values more = GradOf(qkv[i]);
      for (size_t j = 0; j < sum.size(); ++j) sum[j] += more[j];
    }
    return sum;
  };
  const Values got = gradient(false), want = gradient(true);
  for (size_t i = 0; i < want.size(); ++i) ASSERT_NEAR(got[i], want[i], 1e-4) << i;
}

// Whatever an op writes first and gives later, and however often, each counts once.
TEST_F(Tape, EachContributionOfOneVjpCountsOnce) {
  const Var a = Leaf(Rows(4, "a")), b = Leaf(Rows(4, "b"));
  const Var y = ctx_.Result(Rows(4, "y"), {a, b}, [&](Context& ctx, const Tensor& dy) {
    ctx.GiveGrad(a.grad(), dy);
    ctx.GiveGrad(a.grad(), dy);
    ctx.GiveGrad(a.grad(), dy);
    ctx.GiveGrad(b.grad(), dy);
    const GradSlot first = ctx.GradOf(a), second = ctx.GradOf(a);
    for (const GradSlot* slot : {&first, &second})
      for (int64_t i = 0; i < dy.elements(); ++i) {
        float& to = slot->data<float>()[i];
        to = 5 * dy.data<float>()[i] + (slot->mode == Grad::kAccumulate ? to : 0);
      }
  });
  // More arrives at both after that.
  const Var before_a = Scale(ctx_, a, 1);
  const Var z = Scale(ctx_, y, 1);
  const Tensor seed = Rows(4, "seed"), more = Rows(4, "more");
  const std::vector<std::pair<Var, Tensor>> seeds = {{z, seed}, {before_a, more}};
  ctx_.Backward(seeds);
  Values want_a = Zeros(kRows * 4), want_b = want_a;
  AddTo(&want_a, 4, 0, seed, 13);
  AddTo(&want_a, 4, 0, more);
  AddTo(&want_b, 4, 0, seed);
  EXPECT_EQ(GradOf(a), want_a);
  EXPECT_EQ(GradOf(b), want_b);
}

TEST_F(Tape, OneGradientGivenToTwoInputsStaysApart) {
  const Var a = Leaf(Rows(4, "a")), b = Leaf(Rows(4, "b"));
  const Var early = Scale(ctx_, a, 1);  // its contribution comes last
  const Var y = ctx_.Result(Rows(4, "y"), {a, b}, [&](Context& ctx, const Tensor& dy) {
    ctx.GiveGrad(a.grad(), dy);
    ctx.GiveGrad(b.grad(), dy);
  });
  const Tensor seed = Rows(4, "seed"), more = Rows(4, "more");
  const std::vector<std::pair<Var, Tensor>> seeds = {{Scale(ctx_, y, 1), seed}, {early, more}};
  ctx_.Backward(seeds);
  Values want = Zeros(kRows * 4);
  AddTo(&want, 4, 0, seed);
  EXPECT_EQ(GradOf(b), want);
  AddTo(&want, 4, 0, more);
  EXPECT_EQ(GradOf(a), want);
}

TEST_F(Tape, SeedsAreReadOnly) {
  const Var a = Leaf(Rows(4, "a"));
  const Var h = Scale(ctx_, a, 1);
  // Sums hand their gradient on as it is; h is a result, and an input of both.
  const Var y = Add(ctx_, h, Var(Rows(4, "c")), 1), z = Add(ctx_, h, h, 1);
  const Tensor seed = Rows(4, "seed"), part = Rows(2, "part");
  const Values before = Take(seed);
  const int64_t widths[] = {1, 2, 1};
  const Var middle = Split(ctx_, h, widths)[1];
  const std::vector<std::pair<Var, Tensor>> seeds = {
      {h, seed}, {y, seed}, {z, seed}, {a, seed}, {middle, part}, {middle, part}, {y, seed}};
  ctx_.Backward(seeds);
  EXPECT_EQ(Take(seed), before);
  Values want = Zeros(kRows * 4);
  AddTo(&want, 4, 0, seed, 6);
  AddTo(&want, 4, 1, part, 2);
  EXPECT_EQ(GradOf(a), want);

  // A leaf that has nothing but its seed, until the next pass.
  const Var leaf = Leaf(Rows(4, "leaf"));
  ctx_.Backward(leaf, seed);
  ctx_.Backward(Scale(ctx_, leaf, 2), seed);
  EXPECT_EQ(Take(seed), before);
  Values three = Zeros(kRows * 4);
  AddTo(&three, 4, 0, seed, 3);
  EXPECT_EQ(GradOf(leaf), three);
}

TEST_F(Tape, APartThatIsAConstantHasNoGradient) {
  const Var x = Leaf(Rows(5, "x"));
  const int64_t widths[] = {2, 3};
  const std::vector<Var> parts = Split(ctx_, x, widths);
  const Tensor seed = Rows(2, "seed");
  const std::vector<std::pair<Var, Tensor>> seeds = {
      {Scale(ctx_, parts[0], 2), seed}, {Scale(ctx_, parts[1].Detach(), 2), Rows(3, "unused")}};
  ctx_.Backward(seeds);
  Values want = Zeros(kRows * 5);
  AddTo(&want, 5, 0, seed, 2);
  EXPECT_EQ(GradOf(x), want);
}

// Parts do not remember what their whole has forgotten.
TEST_F(Tape, AForgottenGradientStartsAnew) {
  const Var x = Leaf(Rows(5, "x"));
  const int64_t widths[] = {2, 3};
  const Tensor seed = Rows(2, "seed");
  Values want = Zeros(kRows * 5);
  AddTo(&want, 5, 0, seed, 2);
  const std::vector<Var> kept = Split(ctx_, x, widths);
  for (int pass = 0; pass < 3; ++pass) {
    x.grad()->Forget();
    const std::vector<Var> parts = pass < 2 ? Split(ctx_, x, widths) : kept;
    ctx_.Backward(Scale(ctx_, parts[0], 2), seed);
    ctx_.Backward(Scale(ctx_, x, 1), ctx_.Zeros({kRows, 5}, DType::kF32));
    EXPECT_EQ(GradOf(x), want) << pass;
  }
}

TEST_F(Tape, RecomputedFunctionsOfSeveralValues) {
  const Var x = Leaf(Rows(6, "x")), captured = Leaf(Rows(3, "captured"));
  const int64_t halves[] = {3, 3};
  const std::vector<Var> parts = Split(ctx_, x, halves);
  // Of a part twice, of the other, of nothing and of one that is not an argument. The third result
  // is an argument, the fourth gets no gradient.
  const Var inside = Scale(ctx_, captured, 1);
  const auto f = [&](Context& ctx, const Context::Vars& v) {
    EXPECT_FALSE(v[3].defined());
    const Var sum = Add(ctx, Scale(ctx, v[0], 2), v[1], 5);
    const Var more = ctx.Recompute({v[2], sum}, [&](Context& c, const Context::Vars& w) {
      return Context::Vars{Add(c, w[0], w[1], 1)};
    })[0];
    return Context::Vars{more, Add(ctx, inside, sum, 1), v[2], Scale(ctx, sum, 7)};
  };
  const Context::Vars ys = ctx_.Recompute({parts[0], parts[0], parts[1], Var()}, f);
  ASSERT_EQ(ys.size(), 4u);
  const Tensor s0 = Rows(3, "s0"), s1 = Rows(3, "s1"), s2 = Rows(3, "s2"), whole = Rows(6, "w");
  const std::vector<std::pair<Var, Tensor>> seeds = {
      {ys[0], s0}, {ys[1], s1}, {ys[2], s2}, {Scale(ctx_, x, 1), whole}};
  ctx_.Backward(seeds);
  Values want = Zeros(kRows * 6);
  AddTo(&want, 6, 0, s0, 7);
  AddTo(&want, 6, 0, s1, 7);
  AddTo(&want, 6, 3, s0);
  AddTo(&want, 6, 3, s2);
  AddTo(&want, 6, 0, whole);
  EXPECT_EQ(GradOf(x), want);
  Values outside = Zeros(kRows * 3);
  AddTo(&outside, 3, 0, s1);
  EXPECT_EQ(GradOf(captured), outside);
}

// Kernels read states and parameters without a stride.
TEST_F(Tape, AStateThatIsAPartIsRefused) {
  const Var x = Leaf(New({1, 3, 4}, "x")), both = Leaf(New({1, 2, 2, 4}, "both"));
  const int64_t widths[] = {2, 2};
  const Var state = Split(ctx_, both, widths)[1];
  const GlaInputs in = {.q = x, .k = x, .v = x, .g = x, .state = state, .heads = 2, .scale = 1};
  testing::ExpectCheckFails([&] { GlaScan(ctx_, in, LastState::kDrop); },
                            "state of [1,2,2,2] is part of a wider one, with rows 4 apart");
  const Var taps = Split(ctx_, Leaf(New({4, 4}, "taps")), widths)[0];
  testing::ExpectCheckFails([&] { CausalConv(ctx_, {.x = x, .weight = taps}, LastState::kDrop); },
                            "rows 4 apart");
}

// A derivative writes the rows of a cache that are in use, and nobody those that are not.
TEST_F(Tape, ACacheThatIsPartlyUsedHasNoGradient) {
  const Var x = Leaf(New({1, 3, 4}, "x")), cache = Leaf(New({1, 5, 4}, "cache"));
  const AttentionOptions options{.heads = 2, .kv_heads = 2, .scale = 1};
  const KvPast past{.k = cache, .v = cache, .rows = 4};
  testing::ExpectCheckFails([&] { Attention(ctx_, x, x, x, past, options); },
                            "a cache of 5 rows, of which 4 are in use");
}

TEST_F(Tape, GradientsOfAnotherShapeAreRefused) {
  const Var x = Leaf(Rows(4, "x"));
  testing::ExpectCheckFails([&] { ctx_.GiveGrad(x.grad(), Rows(4, "seed")); },
                            "outside of the backward pass");
  testing::ExpectCheckFails([&] { ctx_.Backward(Scale(ctx_, x, 1), Rows(3, "seed")); },
                            "a gradient of fp32 [2,3] for a value of fp32 [2,4]");
}

// A loss that a block adds joins the objective with its coefficient and the step's scale, beside
// what the value is used for otherwise, in a layer that is recomputed as well.
TEST_F(Tape, LossesJoinByThemselves) {
  for (const bool scaled : {false, true})
    for (const bool recomputed : {false, true}) {
      const Var x = Leaf(New({1}, "x"));
      ctx_.loss_scale = Tensor();
      if (scaled) {
        ctx_.loss_scale = ctx_.New({1}, DType::kF32);
        ctx_.loss_scale.data<float>()[0] = 0.25f;
      }
      std::map<std::string, ExtraLoss> losses;
      ctx_.extra_losses = &losses;
      const auto layer = [](Context& ctx, const std::vector<Var>& in) {
        const Var square = Gated(ctx, Activation::kIdentity, in[0], in[0]);
        ctx.AddLoss("square", 8, square);
        return std::vector<Var>{Scale(ctx, square, 2)};
      };
      const std::vector<Var> in = {x};
      const Var y = recomputed ? ctx_.Recompute(in, layer)[0] : layer(ctx_, in)[0];
      const float value = x.data<float>()[0];
      ASSERT_EQ(losses.size(), 1u);
      EXPECT_EQ(losses.begin()->second.coefficient, 8);
      EXPECT_EQ(losses.begin()->second.value.data<float>()[0], value * value);
      const Tensor seed = ctx_.New({1}, DType::kF32);
      seed.data<float>()[0] = 3;
      ctx_.Backward(y, seed);
      EXPECT_EQ(GradOf(x), Values{2 * value * (3 * 2 + 8 * (scaled ? 0.25f : 1.0f))});
    }
  ctx_.extra_losses = nullptr;
}

}  // namespace
}  // namespace tessera
