#include "core/sizes.h"

#include <gtest/gtest.h>

#include <cmath>

#include "arch/cost.h"
#include "arch/registry.h"
#include "core/rng.h"
#include "train/run_config.h"

// Whatever sizes a config asks for, the answer is its cost or a message.

namespace tessera {
namespace {

class Draw {
 public:
  explicit Draw(const std::string& name) : rng_(1, name) {}
  uint64_t Below(uint64_t n) { return rng_.Below(next_++, n); }
  // Mostly sizes that people use, then those around a bound, then what no size is.
  std::string Size() {
    switch (Below(8)) {
      case 0:
        return std::to_string((int64_t{1} << Below(63)) + static_cast<int64_t>(Below(3)) - 1);
      case 1: {
        const int64_t bounds[] = {kMaxCount, kMaxWidth, kMaxSeq, kMaxBatch, kMaxTokens, kMaxSteps};
        return std::to_string(bounds[Below(6)] + static_cast<int64_t>(Below(2)));
      }
      case 2: {
        const char* const odd[] = {"0",
                                   "-1",
                                   "9223372036854775807",
                                   "9223372036854775808",
                                   "4611686018427387904",
                                   "1e300",
                                   "4294967297",
                                   "0.5"};
        return odd[Below(8)];
      }
      default:
        return std::to_string(int64_t{1} << Below(17));
    }
  }
  std::string Keys(const BlockType& type) {
    const auto config = type.make_config();
    FieldList fields;
    config->Fields(fields);
    std::string text;
    for (const Field& f : fields.all())
      if ((f.type.rfind("an integer", 0) == 0 || f.type.rfind("a number", 0) == 0) && Below(3) == 0)
        text += (text.empty() ? "" : ", ") + f.key + ": " + Size();
    if (std::string(type.name) == "attention" && Below(2) == 0)
      text += std::string(text.empty() ? "" : ", ") + "rope: none";
    return std::string(type.name) + ": {" + text + "}";
  }

 private:
  Rng rng_;
  uint64_t next_ = 0;
};

TEST(Sizes, NoConfigOverflows) {
  Draw draw("sizes");
  int refused = 0, too_large = 0, costed = 0;
  for (int i = 0; i < 3000; ++i) {
    const BlockType& type = *AllBlocks()[draw.Below(AllBlocks().size())];
    const std::string yaml = "model: {d_model: " + std::to_string(1 << draw.Below(17)) +
                             ", layers: [{" + draw.Keys(type) +
                             "}]}\ntrain: {batch: " + draw.Size() + ", seq: " + draw.Size() +
                             ", accumulate: " + std::to_string(1 << draw.Below(21)) + "}";
    const absl::StatusOr<RunConfig> config = ParseRunConfig(yaml, "f", {});
    if (!config.ok()) {
      EXPECT_EQ(config.status().code(), absl::StatusCode::kInvalidArgument) << yaml;
      ++refused;
      continue;
    }
    EXPECT_GT(config->train.TokensPerStep(), 0);
    try {
      const ModelCost c = MeasureCost(config->model, 256, config->train.batch, config->train.seq,
                                      config->train.precision);
      EXPECT_GT(c.parameters, 0) << yaml;
      EXPECT_GT(c.activation_bytes, 0) << yaml;
      EXPECT_GE(c.cuda_scratch_bytes, 0) << yaml;
      EXPECT_GE(c.state_bytes, 0) << yaml;
      EXPECT_GE(c.kv_bytes_per_token, 0) << yaml;
      EXPECT_GT(c.forward_flops, 0) << yaml;
      EXPECT_GT(c.training_flops, c.forward_flops) << yaml;
      EXPECT_TRUE(std::isfinite(c.training_flops) && std::isfinite(c.training_bytes)) << yaml;
      ++costed;
    } catch (const SizeError&) {
      ++too_large;
    }
  }
  EXPECT_GT(refused, 300);
  EXPECT_GT(costed, 150);
  EXPECT_GT(too_large, 0);
}

TEST(Sizes, EveryIntegerKeyHasAnUpperBound) {
  const auto check = [](const std::string& in, const FieldList& fields) {
    for (const ManualRow& r : ManualRows(fields))
      EXPECT_TRUE(r.type.rfind("an integer", 0) != 0 || r.key == "seed" ||
                  r.type.find(" in [") != std::string::npos)
          << in << r.key << ": " << r.type;
  };
  for (const BlockType* type : AllBlocks()) {
    const auto config = type->make_config();
    FieldList fields;
    config->Fields(fields);
    check(std::string(type->name) + ".", fields);
  }
  RunConfig config;
  FieldList train, model;
  config.train.Fields(train);
  config.model.Fields(model);
  check("train.", train);
  check("model.", model);
}

TEST(Sizes, ProductsOfKeysAreBoundedWithWords) {
  const auto mistake = [](const std::string& layer, const std::string& train) {
    const auto config = ParseRunConfig(
        "model: {d_model: 256, layers: [" + layer + "]}\ntrain: {" + train + "}", "f", {});
    return std::string(config.status().message());
  };
  EXPECT_EQ(mistake("mlp", "batch: 1048576, seq: 256"),
            "f.yaml:2:8: train.batch x train.seq = 1048576 x 256 tokens a micro-batch; at most "
            "134217728. Use train.accumulate for larger steps");
  EXPECT_EQ(mistake("mlp", "batch: 4611686018427387904, seq: 4"),
            "f.yaml:2:16: batch: expected an integer in [1, 1048576], got '4611686018427387904'");
  EXPECT_EQ(mistake("mlp", "threads: 4294967297"),
            "f.yaml:2:18: threads: expected an integer in [0, 4096], got '4294967297'");
  EXPECT_EQ(mistake("{attention: {heads: 65536, head_dim: 65536, rope: none}}", ""),
            "f.yaml:1:33: attention: 65536 heads of 65536 channels are wider than 16777216; lower "
            "heads or head_dim");
  EXPECT_EQ(mistake("{moe: {experts: 65536, d_ff: 16777216}}", ""),
            "f.yaml:1:33: moe: the experts together, 65536 x 16777216 and 0 shared, are wider than "
            "4294967296; lower experts or d_ff");
}

}  // namespace
}  // namespace tessera
