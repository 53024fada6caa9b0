#include <gtest/gtest.h>

#include <algorithm>
#include <memory>

#include "arch/cost.h"
#include "arch/model.h"
#include "core/rng.h"
#include "tests/check_fails.h"

// What a model and its state know of documents.

namespace tessera {
namespace {

constexpr int64_t kVocab = 32;

class DocumentsTest : public ::testing::Test {
 protected:
  void Build(const std::string& layers) {
    const absl::StatusOr<ConfigNode> node = ParseYaml("{d_model: 16, layers: " + layers + "}", "m");
    ASSERT_TRUE(node.ok()) << node.status();
    ErrorList errors;
    const ModelConfig config = ReadModelConfig(*node, {}, &errors);
    ASSERT_TRUE(errors.ToStatus().ok()) << errors.ToStatus();
    model_ = std::make_unique<Model>(config, kVocab, &parameters_);
    parameters_.Initialise(1);
    for (const Parameter& p : parameters_.all())
      for (int64_t i = 0; i < p.var.shape().elements(); ++i)
        p.var.data<float>()[i] +=
            0.3f * static_cast<float>(Rng(7, p.name).Normal(static_cast<uint64_t>(i)));
  }
  // Hidden outputs of token rows [from, to) of one sequence; the context of a call has ids of its
  // own.
  std::vector<float> Hidden(int64_t from, int64_t to, const std::vector<int32_t>& position,
                            const std::vector<int32_t>& start, ModelState* state) {
    Context ctx(Device::kCpu, &memory_);
    const auto ids = [&](auto value) {
      const Tensor t = ctx.New({1, to - from}, DType::kI32);
      for (int64_t i = 0; i < to - from; ++i) t.data<int32_t>()[i] = value(i);
      return t;
    };
    const auto at = [](const std::vector<int32_t>& of) {
      return [&of](int64_t i) { return of[static_cast<size_t>(i)]; };
    };
    ctx.position = ids(at(position));
    if (!start.empty()) ctx.start = ids(at(start));
    const Tensor tokens = ids([&](int64_t i) {
      return static_cast<int32_t>(((from + i) * (from + i) * 5 + from + i) % kVocab);
    });
    const Tensor y = model_->Hidden(ctx, tokens, state).value();
    EXPECT_EQ(ctx.start.defined(), !start.empty()) << "a model's own starts outlive its pass";
    return {y.data<float>(), y.data<float>() + y.elements()};
  }
  // Of the loss over 12 tokens in documents of 4, 1 and 7, by every parameter.
  std::vector<float> Gradients() {
    parameters_.ForgetGradients();
    Context ctx(Device::kCpu, &memory_);
    ctx.position = ctx.New({1, 12}, DType::kI32);
    const Tensor tokens = ctx.New({1, 12}, DType::kI32), one = ctx.New({1}, DType::kF32);
    for (int32_t t = 0; t < 12; ++t) {
      ctx.position.data<int32_t>()[t] = t < 4 ? t : t < 5 ? 0 : t - 5;
      tokens.data<int32_t>()[t] = t * t % 11;
    }
    *one.data<float>() = 1;
    TrainPass(ctx, *model_, tokens, tokens, one);
    std::vector<float> all;
    for (const Parameter& p : parameters_.all()) {
      const float* const g = p.var.grad()->grad.data<float>();
      all.insert(all.end(), g, g + p.shape.elements());
    }
    return all;
  }

  Arena arena_{Arena::Backing::kMemory, 1 << 24}, memory_{Arena::Backing::kMemory, 1 << 26};
  ParameterSet parameters_{&arena_, true};
  std::unique_ptr<Model> model_;
};

const char* const kAllOverTime =
    "[{attention: {heads: 2}}, {gla: {heads: 2}}, {mamba2: {head_dim: 8}}]";

// Documents of 5, 2 and 6 tokens, in chunks of 4, 3 and 6.
TEST_F(DocumentsTest, AStateOfPackedChunksKnowsWhereTheyBegin) {
  Build(kAllOverTime);
  for (const int64_t capacity : {0, 13}) {
    ModelState state = model_->NewState(1, capacity);
    std::vector<float> got;
    const auto chunk = [&](int64_t from, int64_t to, const std::vector<int32_t>& want) {
      const std::vector<int32_t> next = state.NextPositions(to - from);
      EXPECT_EQ(next, want);
      const std::vector<float> y = Hidden(from, to, next, {}, &state);
      got.insert(got.end(), y.begin(), y.end());
    };
    chunk(0, 4, {0, 1, 2, 3});
    state.StartDocument(0, 1);
    chunk(4, 7, {4, 0, 1});
    EXPECT_EQ(state.position[0], 2);
    state.StartDocument(0, 0);
    chunk(7, 13, {0, 1, 2, 3, 4, 5});
    EXPECT_EQ(state.NextPositions(2), (std::vector<int32_t>{6, 7}));
    EXPECT_EQ(state.tokens(), 13);
    std::vector<float> want;
    for (const auto& [from, to] : {std::pair<int64_t, int64_t>{0, 5}, {5, 7}, {7, 13}}) {
      std::vector<int32_t> position;
      for (int64_t i = 0; i < to - from; ++i) position.push_back(static_cast<int32_t>(i));
      const std::vector<float> y = Hidden(from, to, position, {}, nullptr);
      want.insert(want.end(), y.begin(), y.end());
    }
    ASSERT_EQ(got.size(), want.size());
    for (size_t i = 0; i < want.size(); ++i)
      EXPECT_NEAR(got[i], want[i], 2e-5 * (1 + std::abs(want[i]))) << "element " << i;
  }
}

TEST_F(DocumentsTest, EachSequenceOfAStateHasItsOwn) {
  Build("[mlp]");
  ModelState state = model_->NewState(2, 0);
  state.StartDocument(1, 1);
  state.StartDocument(1, 3);
  EXPECT_EQ(state.NextPositions(4), (std::vector<int32_t>{0, 1, 2, 3, 0, 0, 1, 0}));
  state.Advance(4);
  EXPECT_EQ(state.NextPositions(1), (std::vector<int32_t>{4, 1}));
}

TEST_F(DocumentsTest, ADocumentThatBeginsBehindTheChunkIsAMistake) {
  Build("[mlp]");
  ModelState state = model_->NewState(1, 0);
  state.StartDocument(0, 4);
  testing::ExpectCheckFails([&] { state.StartDocument(0, 3); }, "at row 3, after one at 4");
  testing::ExpectCheckFails([&] { state.Advance(4); }, "at row 4 of a chunk of 4");
}

// A layer that is run again in the backward pass has the documents that it had in the forward one.
TEST_F(DocumentsTest, RunAgainTheyBeginWhereTheyDid) {
  Build("[{gla: {heads: 2}}, {mamba2: {head_dim: 8}}, {attention: {heads: 2}}]");
  const std::vector<float> want = Gradients();
  parameters_ = ParameterSet(&arena_, true);
  Build(
      "[{gla: {heads: 2}, recompute: true}, {mamba2: {head_dim: 8}, recompute: true}, "
      "{attention: {heads: 2}, recompute: true}]");
  EXPECT_EQ(Gradients(), want);
}

// As for PoSE and Self-Extend: positions that jump turn keys otherwise and tell no documents apart.
TEST_F(DocumentsTest, PositionsThatJumpAreNoDocuments) {
  const std::vector<int32_t> plain = {0, 1, 2, 3, 0, 1, 2}, jumping = {0, 1, 70, 71, 0, 50, 9};
  Build("[{attention: {heads: 2, rope: none}}, {gla: {heads: 2}}, {mamba2: {head_dim: 8}}]");
  EXPECT_EQ(Hidden(0, 7, jumping, {}, nullptr), Hidden(0, 7, plain, {}, nullptr));
}

TEST_F(DocumentsTest, PositionsTurnKeysWhereverDocumentsBegin) {
  Build(kAllOverTime);
  const std::vector<int32_t> plain = {0, 1, 2, 3, 0, 1, 2};
  EXPECT_NE(Hidden(0, 7, {0, 1, 70, 71, 0, 50, 9}, {}, nullptr), Hidden(0, 7, plain, {}, nullptr));
  // The angles between tokens of a document are all that counts.
  const std::vector<float> moved = Hidden(0, 7, {5, 6, 7, 8, 30, 31, 32}, {0, 0, 0, 0, 4, 4, 4},
                                          nullptr),
                           want = Hidden(0, 7, plain, {}, nullptr);
  for (size_t i = 0; i < want.size(); ++i)
    EXPECT_NEAR(moved[i], want[i], 2e-4 * (1 + std::abs(want[i]))) << "element " << i;
}

}  // namespace
}  // namespace tessera
