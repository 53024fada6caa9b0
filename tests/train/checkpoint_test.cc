#include "train/checkpoint.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>

#include "absl/strings/str_cat.h"
#include "core/rng.h"
#include "io/files.h"
#include "tests/temporary_folder.h"

namespace tessera {
namespace {

using ::testing::IsSubstring;
using Names = std::vector<std::string>;

// Saves a state of one number, so that a load can tell whose it is.
absl::Status Save(const std::string& run, int64_t step, int64_t keep = 2, size_t size = 3) {
  const std::vector<int64_t> values(size, step);
  const int64_t bytes = static_cast<int64_t>(size) * 8;
  const TensorView model = {"w", DType::kI64, {static_cast<int64_t>(size)}, values.data(), bytes};
  const TensorView moment = {
      "w.m", DType::kI64, {static_cast<int64_t>(size)}, values.data(), bytes};
  return SaveCheckpoint(run, step, {.model = {&model, 1}, .optimizer = {&moment, 1}},
                        {{"loss", step + 0.1}}, keep);
}

// Whether the checkpoint is whole: all its parts are of its step.
bool IsWhole(const Checkpoint& c) {
  const auto good = [&](const TensorView* tensor) {
    if (tensor == nullptr) return false;
    const int64_t* values = static_cast<const int64_t*>(tensor->data);
    return std::all_of(values, values + tensor->shape[0], [&](int64_t v) { return v == c.step; });
  };
  return good(c.model.Find("w")) && good(c.optimizer.Find("w.m")) &&
         c.metadata.at("loss") == static_cast<double>(c.step) + 0.1;
}

TEST(Checkpoint, LoadsWhatWasSavedAndKeepsTheNewest) {
  const TemporaryFolder run;
  EXPECT_EQ(LoadCheckpoint(run.path("")).status().message(),
            absl::StrCat("no checkpoint in ", run.path(""),
                         "/checkpoints; one appears there after train.save_every steps"));
  for (const int64_t step : {0, 500, 1000, 1500}) ASSERT_TRUE(Save(run.path(""), step).ok());
  EXPECT_EQ(run.Names("checkpoints"), (Names{"step-00001000", "step-00001500"}));
  EXPECT_EQ(run.Names("checkpoints/step-00001500"),
            (Names{"manifest.json", "model.safetensors", "optimizer.safetensors"}));
  EXPECT_EQ(*LatestCheckpoint(run.path("")), run.path("") + "/checkpoints/step-00001500");
  const Checkpoint checkpoint = *LoadCheckpoint(run.path(""));
  EXPECT_EQ(checkpoint.step, 1500);
  EXPECT_TRUE(IsWhole(checkpoint));
  EXPECT_TRUE(checkpoint.warnings.empty());
}

TEST(Checkpoint, TheSameStepIsReplaced) {
  const TemporaryFolder run;
  ASSERT_TRUE(Save(run.path(""), 5).ok());
  ASSERT_TRUE(Save(run.path(""), 5, 2, 100).ok());
  EXPECT_EQ(run.Names("checkpoints"), Names{"step-00000005"});
  EXPECT_EQ(LoadCheckpoint(run.path(""))->model.Find("w")->shape[0], 100);
}

TEST(Checkpoint, ADamagedOneIsPassedOverWithAWarning) {
  const TemporaryFolder run;
  ASSERT_TRUE(Save(run.path(""), 1, 3).ok());
  ASSERT_TRUE(Save(run.path(""), 2, 3).ok());
  const std::string newest = run.path("checkpoints/step-00000002/model.safetensors");
  std::string bytes = *ReadFile(newest);
  ASSERT_TRUE(AtomicWrite(newest, bytes.substr(1)).ok());
  const Checkpoint checkpoint = *LoadCheckpoint(run.path(""));
  EXPECT_EQ(checkpoint.step, 1);
  ASSERT_EQ(checkpoint.warnings.size(), 1u);
  EXPECT_PRED_FORMAT2(IsSubstring,
                      "the checkpoint of step 2 is unusable: ", checkpoint.warnings[0]);
  EXPECT_PRED_FORMAT2(IsSubstring, "; the checkpoint of step 1 is used instead",
                      checkpoint.warnings[0]);
  // The resumed run saves again before it comes to step 2: the damaged one does not count for keep.
  ASSERT_TRUE(Save(run.path(""), 1, 1).ok());
  EXPECT_EQ(LoadCheckpoint(run.path(""))->step, 1);
  ASSERT_TRUE(std::filesystem::remove(run.path("checkpoints/step-00000001/manifest.json")));
  EXPECT_EQ(LoadCheckpoint(run.path("")).status().code(), absl::StatusCode::kDataLoss);
}

TEST(Checkpoint, AFlippedBitInAnyByteIsNoticed) {
  const TemporaryFolder run;
  ASSERT_TRUE(Save(run.path(""), 7).ok());
  const std::string folder = *LatestCheckpoint(run.path(""));
  int64_t flips = 0;
  for (const char* name : {"manifest.json", "model.safetensors", "optimizer.safetensors"}) {
    const std::string path = absl::StrCat(folder, "/", name), bytes = *ReadFile(path);
    FILE* file = fopen(path.c_str(), "r+b");
    const auto put = [&](size_t at, int byte) {
      fseek(file, static_cast<long>(at), SEEK_SET);
      fputc(byte, file);
      fflush(file);
    };
    for (size_t at = 0; at < bytes.size(); ++at, ++flips) {
      put(at, static_cast<uint8_t>(bytes[at]) ^ (1 << (at % 8)));
      EXPECT_FALSE(ReadCheckpoint(folder).ok()) << name << " byte " << at;
      put(at, bytes[at]);
    }
    fclose(file);
  }
  EXPECT_GT(flips, 500);
  EXPECT_TRUE(ReadCheckpoint(folder).ok());
}

TEST(Checkpoint, AFullDiskLeavesTheOldOnes) {
  const TemporaryFolder run;
  ASSERT_TRUE(Save(run.path(""), 1).ok());
  rlimit before;
  getrlimit(RLIMIT_FSIZE, &before);
  const auto handler = signal(SIGXFSZ, SIG_IGN);
  rlimit small = before;
  small.rlim_cur = 4096;
  setrlimit(RLIMIT_FSIZE, &small);
  const absl::Status status = Save(run.path(""), 2, 1, 10000);
  setrlimit(RLIMIT_FSIZE, &before);
  signal(SIGXFSZ, handler);
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
  EXPECT_PRED_FORMAT2(IsSubstring, "File too large (EFBIG)", std::string(status.message()));
  EXPECT_EQ(run.Names("checkpoints"), Names{"step-00000001"});
  EXPECT_TRUE(IsWhole(*LoadCheckpoint(run.path(""))));
}

// A child saves step after step and is killed at a random time; what is there must load, be whole,
// and be no older than the last save that the child saw finished.
TEST(Checkpoint, AKillAtAnyTimeLosesAtMostTheSaveItHit) {
  const TemporaryFolder run;
  const std::string path = run.path("");
  ASSERT_TRUE(Save(path, 0).ok());
  const Rng rng(1, "kill");
  int64_t next = 1, leftovers = 0;
  for (uint64_t trial = 0; trial < 60; ++trial) {
    int pipe_ends[2];
    ASSERT_EQ(pipe(pipe_ends), 0);
    const pid_t child = fork();
    if (child == 0) {
      for (int64_t step = next;; ++step) {
        if (!Save(path, step, 2, 5000).ok()) _exit(1);
        if (write(pipe_ends[1], &step, sizeof(step)) != sizeof(step)) _exit(1);
      }
    }
    usleep(static_cast<useconds_t>(rng.Below(trial, 60'000)));
    kill(child, SIGKILL);
    int status;
    waitpid(child, &status, 0);
    EXPECT_TRUE(WIFSIGNALED(status)) << "the child could not save";
    close(pipe_ends[1]);
    int64_t finished = next - 1, step;
    while (read(pipe_ends[0], &step, sizeof(step)) == sizeof(step)) finished = step;
    close(pipe_ends[0]);
    for (const std::string& name : run.Names("checkpoints")) leftovers += name[0] == '.';
    const absl::StatusOr<Checkpoint> checkpoint = LoadCheckpoint(path);
    ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
    EXPECT_TRUE(checkpoint->warnings.empty()) << checkpoint->warnings[0];
    EXPECT_TRUE(IsWhole(*checkpoint));
    EXPECT_GE(checkpoint->step, finished);
    // Every other time the next child saves the same step again.
    next = checkpoint->step + static_cast<int64_t>(trial % 2);
  }
  EXPECT_GT(leftovers, 0) << "no kill hit a save; the test proved nothing";
  ASSERT_TRUE(Save(path, next).ok());
  for (const std::string& name : run.Names("checkpoints")) EXPECT_EQ(name.substr(0, 5), "step-");
}

}  // namespace
}  // namespace tessera
