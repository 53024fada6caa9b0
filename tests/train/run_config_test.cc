#include "train/run_config.h"

#include <gtest/gtest.h>

namespace tessera {
namespace {

// Where documents share sequences, so that blocks must keep them apart.
TEST(RunConfig, DataSaysWhetherItHasDocuments) {
  DataKeys data;
  EXPECT_FALSE(data.HasDocuments());
  data.text = "a";
  EXPECT_FALSE(data.HasDocuments());
  data.document_separator = "|";
  EXPECT_TRUE(data.HasDocuments());
  EXPECT_TRUE(DataKeys{.jsonl = "a"}.HasDocuments());
  EXPECT_FALSE(DataKeys{.tokens = "a"}.HasDocuments());
  EXPECT_TRUE((DataKeys{.tokens = "a", .document_id = 0}.HasDocuments()));
}

}  // namespace
}  // namespace tessera
