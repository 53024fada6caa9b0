#include "ops/sequence.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>

#include "core/rng.h"
#include "kernels/device/memory.h"
#include "ops/ops.h"
#include "tests/check_fails.h"
#include "tests/device/test_gpu.h"

namespace tessera::testing {
namespace {

class DocumentStartsTest : public ::testing::TestWithParam<Device> {
 protected:
  std::vector<int32_t> Of(int64_t B, int64_t T, const std::vector<int32_t>& position) {
    return Run(B, T, position, DocumentStarts);
  }
  std::vector<int32_t> EndsOf(int64_t B, int64_t T, const std::vector<int32_t>& start) {
    return Run(B, T, start, DocumentEnds);
  }

 private:
  std::vector<int32_t> Run(int64_t B, int64_t T, const std::vector<int32_t>& values,
                           Tensor (*op)(Context&, const Tensor&)) {
    Arena arena(TouchableMemory(GetParam(), int64_t{8} << 20), Arena::Backing::kPoisoned);
    Context ctx(GetParam(), &arena);
    const Tensor in = ctx.New({B, T}, DType::kI32);
    std::ranges::copy(values, in.data<int32_t>());
    const Tensor out = op(ctx, in);
    Wait(GetParam(), Mark(GetParam()));
    return {out.data<int32_t>(), out.data<int32_t>() + B * T};
  }
};

TEST_P(DocumentStartsTest, AreTheRowsOfZeros) {
  EXPECT_EQ(Of(1, 1, {0}), (std::vector<int32_t>{0}));
  EXPECT_EQ(Of(2, 4, {0, 1, 0, 1, 0, 0, 0, 1}), (std::vector<int32_t>{0, 0, 2, 2, 0, 1, 2, 2}));
}

TEST_P(DocumentStartsTest, LieInThePastOfAChunkThatContinues) {
  EXPECT_EQ(Of(2, 3, {7, 8, 0, 2147483647, 5, 6}),
            (std::vector<int32_t>{-7, -7, 2, -2147483647, -2147483647, -2147483647}));
}

TEST_P(DocumentStartsTest, DoNotMoveWherePositionsJump) {
  EXPECT_EQ(Of(1, 8, {0, 1, 90, 91, 0, 40, 41, 3}), (std::vector<int32_t>{0, 0, 0, 0, 4, 4, 4, 4}));
}

TEST_P(DocumentStartsTest, AreThoseOfAWalkOverManyRows) {
  for (const int64_t T : {31, 256, 257, 1000}) {
    std::vector<int32_t> position, want;
    for (int64_t b = 0; b < 3; ++b) {
      int32_t at = b == 0 ? 0 : 5, start = -at;
      for (int64_t t = 0; t < T; ++t, ++at) {
        if (b < 2 && Rng(3, "document").Uniform(static_cast<uint64_t>(b * T + t)) < 0.01) at = 0;
        if (at == 0) start = static_cast<int32_t>(t);
        position.push_back(at);
        want.push_back(start);
      }
    }
    EXPECT_EQ(Of(3, T, position), want) << T;
  }
}

TEST_P(DocumentStartsTest, HaveTheirEndsWhereTheNextOneBegins) {
  EXPECT_EQ(EndsOf(1, 1, {0}), (std::vector<int32_t>{1}));
  EXPECT_EQ(EndsOf(2, 4, {0, 0, 2, 2, -7, -7, -7, 3}),
            (std::vector<int32_t>{2, 2, 4, 4, 3, 3, 3, 4}));
  for (const int64_t T : {31, 256, 257, 1000}) {
    std::vector<int32_t> start, want(static_cast<size_t>(2 * T));
    for (int64_t b = 0; b < 2; ++b) {
      int32_t begin = b == 0 ? 0 : -5;
      std::vector<int32_t> begins;
      for (int64_t t = 0; t < T; ++t) {
        if (t > 0 && Rng(3, "document").Uniform(static_cast<uint64_t>(b * T + t)) < 0.01)
          begins.push_back(begin = static_cast<int32_t>(t));
        start.push_back(begin);
      }
      begins.push_back(static_cast<int32_t>(T));
      for (int64_t t = 0; t < T; ++t)
        want[static_cast<size_t>(b * T + t)] = *std::ranges::upper_bound(begins, t);
    }
    EXPECT_EQ(EndsOf(2, T, start), want) << T;
  }
}

INSTANTIATE_TEST_SUITE_P(Devices, DocumentStartsTest,
                         ::testing::Values(Device::kCpu, Device::kCuda),
                         [](const auto& i) { return std::string(Name(i.param)); });

// An op over time: how wide its inputs [B,T,width] are, and what it makes of them, after a past or
// from nothing.
enum class Past : uint8_t { kNone, kOfAnotherDocument };
struct OpOverTime {
  std::string name;
  std::vector<int64_t> widths;
  std::function<Var(Context&, const std::vector<Var>&, Past)> run;
};

// Normal numbers; those of a name are the same wherever they are asked for.
Var Numbers(Context& ctx, const char* name, const Shape& shape) {
  const Tensor t = ctx.New(shape, DType::kF32);
  for (int64_t i = 0; i < t.elements(); ++i)
    t.data<float>()[i] = static_cast<float>(Rng(5, name).Normal(static_cast<uint64_t>(i)));
  return Var(t);
}

Var AttentionAfter(Context& ctx, const std::vector<Var>& in, Past past, int64_t after) {
  const int64_t B = in[0].dim(0);
  KvPast kv;
  if (past != Past::kNone)
    kv = {Numbers(ctx, "past k", {B, 5, 4}), Numbers(ctx, "past v", {B, 5, 6}), 5, 0};
  return Attention(ctx, in[0], in[1], in[2], kv,
                   {.heads = 2, .kv_heads = 1, .after = after, .scale = 0.5f});
}

const OpOverTime kOps[] = {
    {"attention",
     {8, 4, 6},
     [](Context& ctx, const std::vector<Var>& in, Past past) {
       return AttentionAfter(ctx, in, past, 0);
     }},
    {"attention_looking_ahead",
     {8, 4, 6},
     [](Context& ctx, const std::vector<Var>& in, Past past) {
       return AttentionAfter(ctx, in, past, -1);
     }},
    {"gla_scan",
     {8, 8, 6, 8},
     [](Context& ctx, const std::vector<Var>& in, Past past) {
       const Var gates = Activate(ctx, Activation::kSigmoid, in[3], -1);
       GlaInputs args{.q = in[0], .k = in[1], .v = in[2], .g = gates, .heads = 2, .scale = 0.5f};
       if (past != Past::kNone) args.state = Numbers(ctx, "state", {in[0].dim(0), 2, 4, 3});
       return GlaScan(ctx, args, LastState::kDrop).y;
     }},
    {"ssd_scan",
     {8, 2, 3, 3},
     [](Context& ctx, const std::vector<Var>& in, Past past) {
       SsdInputs args{.x = in[0], .dt = in[1], .b = in[2], .c = in[3], .N = 3};
       args.A_log = Numbers(ctx, "A_log", {2});
       args.dt_bias = Numbers(ctx, "dt_bias", {2});
       if (past != Past::kNone) args.state = Numbers(ctx, "state", {in[0].dim(0), 2, 3, 4});
       return SsdScan(ctx, args, LastState::kDrop).y;
     }},
    {"causal_conv",
     {5},
     [](Context& ctx, const std::vector<Var>& in, Past past) {
       ConvInputs args{.x = in[0], .weight = Numbers(ctx, "weight", {5, 4})};
       if (past != Past::kNone) args.state = Numbers(ctx, "state", {in[0].dim(0), 3, 5});
       return CausalConv(ctx, args, LastState::kDrop).y;
     }},
};

constexpr int64_t kB = 2;

// Rows by (batch row, row of the packed sequence), of the output and then of each input's gradient.
using Rows = std::map<std::pair<int64_t, int64_t>, std::vector<float>>;

class SequenceTest : public ::testing::TestWithParam<std::tuple<OpOverTime, Device>> {
 protected:
  // The op on these rows of a packed sequence, whose documents begin where `start` says.
  Rows Run(const std::vector<int64_t>& rows, const std::vector<int32_t>& start,
           const std::vector<int32_t>& position, Past past) {
    const auto& [op, device] = GetParam();
    Arena arena(TouchableMemory(device, int64_t{32} << 20), Arena::Backing::kPoisoned);
    const int64_t T = static_cast<int64_t>(rows.size());
    Rows out;
    Context ctx(device, &arena);
    const auto ids = [&](const std::vector<int32_t>& of) {
      const Tensor t = ctx.New({kB, T}, DType::kI32);
      for (int64_t b = 0; b < kB; ++b) std::ranges::copy(of, t.data<int32_t>() + b * T);
      return t;
    };
    if (!start.empty()) ctx.start = ids(start);
    if (!position.empty()) ctx.position = ids(position);
    const auto values = [&](const std::string& name, int64_t width) {
      const Tensor t = ctx.New({kB, T, width}, DType::kF32);
      for (int64_t i = 0; i < t.elements(); ++i) {
        const int64_t b = i / (T * width), row = rows[static_cast<size_t>(i / width % T)];
        t.data<float>()[i] = static_cast<float>(
            Rng(7, name).Normal(static_cast<uint64_t>((b * 64 + row) * 64 + i % width)));
      }
      return t;
    };
    std::vector<Var> inputs;
    for (size_t i = 0; i < op.widths.size(); ++i)
      inputs.push_back(Leaf(values("input" + std::to_string(i), op.widths[i])));
    ctx.SetRecording(true);
    const Var y = op.run(ctx, inputs, past);
    const auto take = [&](const Tensor& t) {
      Wait(device, Mark(device));
      const int64_t width = t.dim(2);
      for (int64_t i = 0; i < t.elements(); ++i)
        out[{i / (T * width), rows[static_cast<size_t>(i / width % T)]}].push_back(
            t.data<float>()[i]);
    };
    take(y.value());
    ctx.Backward(y, values("cotangent", y.dim(2)));
    for (const Var& v : inputs) take(v.grad()->grad);
    return out;
  }
  static void ExpectClose(const Rows& got, const Rows& want) {
    for (const auto& [place, values] : want) {
      const std::vector<float>& others = got.at(place);
      ASSERT_EQ(others.size(), values.size());
      for (size_t i = 0; i < values.size(); ++i)
        EXPECT_NEAR(others[i], values[i], 2e-5 * (1 + std::abs(values[i])))
            << "batch row " << place.first << ", row " << place.second << ", number " << i;
    }
  }
};

// Rows of three packed documents, of which the first rows are not among them.
TEST_P(SequenceTest, GatheredRowsOfPackedDocumentsAreThoseOfEachDocument) {
  const std::vector<int64_t> rows = {3, 7, 9, 12, 13, 19, 20, 40};
  const std::vector<int32_t> start = {0, 1, 1, 3, 3, 3, 6, 6};
  for (const Past past : {Past::kNone, Past::kOfAnotherDocument}) {
    const Rows gathered = Run(rows, start, {}, past);
    for (size_t begin = 0; begin < rows.size();) {
      size_t end = begin;
      while (end < rows.size() && start[end] == static_cast<int32_t>(begin)) ++end;
      ExpectClose(gathered, Run({rows.begin() + static_cast<int64_t>(begin),
                                 rows.begin() + static_cast<int64_t>(end)},
                                {}, {}, Past::kNone));
      begin = end;
    }
  }
}

// A document that began before the chunk goes on from the past, whichever rows of it are here.
TEST_P(SequenceTest, AStartInThePastKeepsThePast) {
  const std::vector<int64_t> rows = {3, 7, 9, 12, 13};
  const Rows want = Run({3, 7, 9}, {}, {}, Past::kOfAnotherDocument);
  ExpectClose(Run(rows, {-9, -9, -9, 3, 3}, {}, Past::kOfAnotherDocument), want);
}

TEST_P(SequenceTest, PositionsAreNotRead) {
  const std::vector<int64_t> rows = {0, 1, 2, 3, 4, 5};
  const std::vector<int32_t> start = {0, 0, 0, 3, 3, 3};
  const Rows want = Run(rows, start, {0, 1, 2, 0, 1, 2}, Past::kNone);
  EXPECT_EQ(Run(rows, start, {0, 1, 700, 0, 0, 9}, Past::kNone), want);
  EXPECT_EQ(Run(rows, start, {}, Past::kNone), want);
}

INSTANTIATE_TEST_SUITE_P(Ops, SequenceTest,
                         ::testing::Combine(::testing::ValuesIn(kOps),
                                            ::testing::Values(Device::kCpu, Device::kCuda)),
                         [](const auto& i) {
                           return std::get<0>(i.param).name + "_" + Name(std::get<1>(i.param));
                         });

TEST(StartsTest, OfAnotherSequenceAreAMistake) {
  Arena arena(Arena::Backing::kMeta, 0);
  Context ctx(Device::kMeta, &arena);
  ctx.start = ctx.New({1, 9}, DType::kI32);
  EXPECT_EQ(StartFor(ctx, ctx.New({1, 9, 4}, DType::kF32)).elements(), 9);
  ExpectCheckFails([&] { StartFor(ctx, ctx.New({1, 3, 4}, DType::kF32)); }, "an op over [1,3,4]");
}

}  // namespace
}  // namespace tessera::testing
