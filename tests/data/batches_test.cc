#include "data/batches.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "data/labelled.h"
#include "data/lanes.h"
#include "data/masked.h"
#include "io/files.h"
#include "tests/temporary_folder.h"

// Sources of other batches than the next token of shuffled windows (dataset_test.cc).

namespace tessera {
namespace {

std::string Letters(int64_t n) {
  std::string text;
  for (int64_t i = 0; i < n; ++i) text.push_back(static_cast<char>('a' + i % 23));
  return text;
}

class Source : public ::testing::Test {
 protected:
  Dataset Open(const std::string& bytes, DataConfig::Format format, double val_fraction,
               int64_t T) {
    EXPECT_TRUE(AtomicWrite(path_, bytes).ok());
    absl::StatusOr<Dataset> data = Dataset::Open(
        {.format = format, .path = path_, .val_fraction = val_fraction}, MakeByteTokenizer(), T);
    EXPECT_TRUE(data.ok()) << data.status();
    return *std::move(data);
  }
  TemporaryFolder folder_;
  std::string path_ = folder_.path("data");
};

using Masked = Source;

TEST_F(Masked, TellsAShareOfTheTokensWhereTheyStand) {
  const Dataset data = Open(Letters(20000), DataConfig::Format::kText, 0.2, 64);
  const MaskedTokens masked(data, {.rate = 0.25, .mask_token = 0, .vocab = 256});
  int64_t told = 0, as_mask = 0, as_self = 0, places = 0;
  for (int64_t step = 0; step < 20; ++step) {
    const BatchIndex index{.seed = 3, .step = step};
    const Batch plain = data.TrainBatch(index, 8, 64), batch = masked.TrainBatch(index, 8, 64);
    EXPECT_EQ(batch.inputs, masked.TrainBatch(index, 8, 64).inputs);
    int64_t targets = 0;
    for (size_t i = 0; i < plain.inputs.size(); ++i) {
      ++places;
      if (batch.targets[i] == kNoTarget) {
        EXPECT_EQ(batch.inputs[i], plain.inputs[i]);
        continue;
      }
      EXPECT_EQ(batch.targets[i], plain.inputs[i]);
      ++targets;
      as_mask += batch.inputs[i] == 0;
      as_self += batch.inputs[i] == plain.inputs[i];
    }
    EXPECT_EQ(targets, batch.target_count);
    told += targets;
  }
  // Three deviations of a draw.
  EXPECT_NEAR(static_cast<double>(told) / static_cast<double>(places), 0.25, 0.013);
  EXPECT_NEAR(static_cast<double>(as_mask) / static_cast<double>(told), 0.8, 0.024);
  EXPECT_NEAR(static_cast<double>(as_self) / static_cast<double>(told), 0.1, 0.018);
}

TEST_F(Masked, ValidationMasksTheSameWhateverTheSeedAndCountsItsBytes) {
  const Dataset data = Open(Letters(4000), DataConfig::Format::kText, 0.5, 16);
  const MaskedTokens masked(data, {.rate = 0.5, .mask_token = 0, .vocab = 256});
  const Batch first = masked.ValidationBatch(0, 4, 16, INT64_MAX);
  EXPECT_EQ(first.target_bytes, first.target_count);
  EXPECT_GT(first.target_count, 16);
  const Batch cut = masked.ValidationBatch(0, 4, 16, 5);
  EXPECT_EQ(cut.target_count, 5);
  EXPECT_EQ(cut.target_bytes, 5);
  EXPECT_EQ(std::count_if(cut.targets.begin(), cut.targets.end(),
                          [](int32_t t) { return t != kNoTarget; }),
            5);
}

using Labelled = Source;

std::string Documents() {
  std::string lines;
  for (int i = 0; i < 10; ++i)
    absl::StrAppend(&lines, R"({"text": ")", std::string(static_cast<size_t>(2 + i), 'a' + i),
                    R"(", "label": )", i % 3, "}\n\n", R"({"text": ""})", "\n");
  return lines;
}

TEST_F(Labelled, ARowIsADocumentWithItsLabel) {
  const Dataset data = Open(Documents(), DataConfig::Format::kJsonl, 0.3, 6);
  const auto source =
      LabelledDocuments::Open(data, {.path = path_, .label = "label", .classes = 3});
  ASSERT_TRUE(source.ok()) << source.status();
  int64_t seen = 0;
  const auto look = [&](const Batch& batch, int64_t rows) {
    for (int64_t row = 0; row < rows; ++row) {
      const auto* in = batch.inputs.data() + row * 6;
      const auto* to = batch.targets.data() + row * 6;
      const auto* at = batch.position.data() + row * 6;
      const int document = in[0] - 'a';
      const int64_t length = std::min<int64_t>(2 + document, 6);
      for (int64_t t = 0; t < 6; ++t) {
        EXPECT_EQ(in[t], t < length ? in[0] : 0);
        EXPECT_EQ(to[t], t == length - 1 ? document % 3 : kNoTarget);
        EXPECT_EQ(at[t], t < length ? t : t - length);
      }
      seen |= int64_t{1} << document;
    }
  };
  // Documents of 2 to 11 bytes, of which the last two are a third of the bytes.
  EXPECT_EQ((*source)->ValidationBatches(2, 6), 1);
  EXPECT_EQ((*source)->ValidationBatch(0, 2, 6).target_count, 2);
  EXPECT_EQ((*source)->ValidationBatch(0, 4, 6).target_count, 2);
  EXPECT_EQ((*source)->ValidationBatch(0, 4, 6, 1).target_count, 1);
  // An epoch: each document for training once.
  for (int64_t step = 0; step < 4; ++step)
    look((*source)->TrainBatch({.seed = 1, .step = step}, 2, 6), 2);
  EXPECT_EQ(seen, (1 << 8) - 1);
  look((*source)->ValidationBatch(0, 2, 6), 2);
  EXPECT_EQ(seen, (1 << 10) - 1);
}

TEST_F(Labelled, PaddingMayBeSeenAndTheFirstTokenTell) {
  const Dataset data = Open(Documents(), DataConfig::Format::kJsonl, 0, 16);
  const auto source = LabelledDocuments::Open(data, {.path = path_,
                                                     .label = "label",
                                                     .classes = 3,
                                                     .at = LabelledConfig::At::kFirst,
                                                     .padding = LabelledConfig::Padding::kSeen});
  ASSERT_TRUE(source.ok()) << source.status();
  const Batch batch = (*source)->TrainBatch({}, 3, 16);
  for (size_t i = 0; i < batch.position.size(); ++i) {
    EXPECT_EQ(batch.position[i], static_cast<int32_t>(i % 16));
    EXPECT_EQ(batch.targets[i] == kNoTarget, i % 16 != 0);
  }
}

TEST_F(Labelled, ALabelThatIsMissingOrNoClassIsToldWithItsLine) {
  const Dataset data = Open(Documents(), DataConfig::Format::kJsonl, 0, 6);
  const auto message = [&](const char* label, int64_t classes) {
    const auto source =
        LabelledDocuments::Open(data, {.path = path_, .label = label, .classes = classes});
    return std::string(source.status().message());
  };
  EXPECT_EQ(message("class", 3).find(path_ + ":1: "), 0u) << message("class", 3);
  EXPECT_NE(message("class", 3).find("class"), std::string::npos);
  EXPECT_EQ(message("label", 2).find(path_ + ":7: "), 0u) << message("label", 2);
}

using Stream = Source;

TEST_F(Stream, RowsGoOnWhereTheyEnded) {
  const Dataset data = Open(Letters(206), DataConfig::Format::kText, 0, 8);
  const Lanes lanes(data);
  ASSERT_TRUE(lanes.Check(4, 8).ok());
  EXPECT_FALSE(lanes.Check(24, 8).ok());
  const std::string text = Letters(206);
  // Four lanes of 51 tokens: six windows of 8, of which the last ends at token 48.
  for (int64_t step = 0; step < 14; ++step)
    for (int64_t micro = 0; micro < 2; ++micro) {
      const Batch batch = lanes.TrainBatch(
          {.seed = 9, .step = step, .micro_batch = micro, .micro_batches = 2}, 2, 8);
      EXPECT_EQ(batch.target_count, 16);
      for (int64_t i = 0; i < 16; ++i) {
        const int64_t lane = 2 * micro + i / 8, t = step % 6 * 8 + i % 8;
        const size_t at = static_cast<size_t>(lane * 51 + t), place = static_cast<size_t>(i);
        EXPECT_EQ(batch.inputs[place], text[at]);
        EXPECT_EQ(batch.targets[place], text[at + 1]);
        EXPECT_EQ(batch.position[place], t);
      }
    }
}

TEST_F(Stream, DocumentsAndLanesBeginAtZero) {
  std::string lines;
  for (int i = 0; i < 12; ++i)
    absl::StrAppend(&lines, R"({"text": ")", std::string(10, 'a' + i), R"("})", "\n");
  const Dataset data = Open(lines, DataConfig::Format::kJsonl, 0, 6);
  const Lanes lanes(data);
  // Lanes of 60 tokens: six documents each; windows of 6 tokens end within one.
  for (int64_t step = 0; step < 9; ++step) {
    const Batch batch = lanes.TrainBatch({.step = step}, 2, 6);
    for (int64_t i = 0; i < 12; ++i)
      EXPECT_EQ(batch.position[static_cast<size_t>(i)], (step * 6 + i % 6) % 10);
  }
}

TEST_F(Stream, ValidationHasFewerLanesWhereThereAreFewerTokens) {
  const Dataset data = Open(Letters(100), DataConfig::Format::kText, 0.2, 8);
  const Lanes lanes(data);
  EXPECT_EQ(lanes.ValidationBatches(16, 8), 1);
  const Batch batch = lanes.ValidationBatch(0, 16, 8, INT64_MAX);
  EXPECT_EQ(batch.target_count, 16);  // two lanes of 10
  EXPECT_EQ(batch.inputs[0], Letters(100)[80]);
  EXPECT_EQ(batch.inputs[8], Letters(100)[90]);
}

}  // namespace
}  // namespace tessera
