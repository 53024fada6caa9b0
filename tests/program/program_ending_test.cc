#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <thread>

#include "core/check.h"
#include "core/check_error.h"
#include "tests/program/shell.h"
#include "tests/temporary_folder.h"
#include "tools/command.h"

// How the program ends: by whatever is thrown, and by an output that cannot be written.

namespace tessera {
namespace {

using testing::Ended;
using testing::Shell;

constexpr const char* kProgram = TESSERA_BINARY_DIR "/tessera";

std::string Said(const std::function<void()>& throws, int code) {
  ::testing::internal::CaptureStderr();
  EXPECT_EQ(RunGuarded([&] { return throws(), 0; }), code);
  return ::testing::internal::GetCapturedStderr();
}

TEST(Ending, WhateverIsThrownIsAMessageAndACode) {
  EXPECT_EQ(Said([] {}, kDone), "");
  EXPECT_NE(Said([] { throw std::bad_alloc(); }, kFailed).find("tessera: out of memory: "),
            std::string::npos);
  EXPECT_NE(Said([] { throw SizeError("too wide"); }, kMistake).find("tessera: too wide\n"),
            std::string::npos);
  EXPECT_NE(Said([] { throw CudaError("no"); }, kFailed).find("tessera: the GPU failed: no\n"),
            std::string::npos);
  EXPECT_NE(Said([] { throw std::system_error(EAGAIN, std::generic_category()); }, kFailed)
                .find("no more threads"),
            std::string::npos);
  EXPECT_NE(Said(
                [] {
                  throw std::filesystem::filesystem_error(
                      "status", "p", std::make_error_code(std::errc::permission_denied));
                },
                kFailed)
                .find("Permission denied [p]"),
            std::string::npos);
  const std::string bug = Said([] { TESSERA_CHECK(1 + 1 == 3, "of %d", 7); }, kBug);
  EXPECT_NE(bug.find("tests/program/program_ending_test.cc:"), std::string::npos) << bug;
  EXPECT_NE(bug.find("internal error, '1 + 1 == 3' does not hold: of 7\nThis is a bug in Tessera"),
            std::string::npos)
      << bug;
  EXPECT_NE(Said([] { throw 7; }, kBug).find("bug in Tessera"), std::string::npos);
  EXPECT_NE(Said([] { throw std::out_of_range("at"); }, kBug).find("unforeseen: at"),
            std::string::npos);
}

// Where nobody can catch, on a thread of its own, the end is the same.
TEST(Ending, AThreadEndsTheProgramWithTheSameWords) {
  EXPECT_EXIT(
      {
        CatchAll();
        std::thread([] { TESSERA_CHECK(false, "on a thread"); }).join();
      },
      ::testing::ExitedWithCode(kBug), "does not hold: on a thread\nThis is a bug in Tessera");
}

class Output : public ::testing::Test {
 protected:
  Output() {
    std::ofstream text(folder_.path("t.txt"));
    for (int i = 0; i < 300; ++i) text << "line " << i << "\n";
    std::ofstream(folder_.path("c.yaml"))
        << "model: {d_model: 16, layers: [mlp]}\ntrain: {data: {text: " << folder_.path("t.txt")
        << "}, steps: 2, batch: 1, seq: 16, warmup: 0}\n";
  }
  Ended Run(const std::string& command) { return Shell(std::string(kProgram) + " " + command); }
  std::string At(const std::string& name) { return folder_.path(name); }

  TemporaryFolder folder_;
};

TEST_F(Output, ThatCannotBeWrittenIsAFailureOfEveryCommand) {
  const std::string config = At("c.yaml"), run = At("run");
  ASSERT_EQ(Run("train " + config + " --quiet --run " + run).status, 0);
  const std::string commands[] = {
      "--help",
      "--version",
      "train --help",
      "blocks",
      "blocks gla",
      "blocks --json",
      "configs",
      "configs quickstart",
      "completion bash",
      "completion zsh",
      "completion fish",
      "describe " + config,
      "describe --json " + config,
      "eval --run " + run + " --data " + At("t.txt") + " --json",
      "generate --run " + run + " --prompt a --tokens 3",
      "generate --run " + run + " --prompt a --tokens 3 --json",
      "bench mlp --seq 16 --tokens 16 --rounds 1 --d-model 16 --modes forward",
      "tokenizer train " + At("t.txt") + " --vocab 260 --out " + At("bpe.json"),
  };
  for (const std::string& c : commands) {
    const Ended full = Run(c + " 2>&1 >/dev/full");
    EXPECT_EQ(full.status, kFailed) << c;
    EXPECT_NE(full.output.find("tessera: standard output cannot be written"), std::string::npos)
        << c << ": " << full.output;
    const Ended closed = Run(c + " 2>&1 >&-");
    EXPECT_EQ(closed.status, kFailed) << c;
    EXPECT_NE(closed.output.find("tessera: standard output cannot be written: it is closed"),
              std::string::npos)
        << c << ": " << closed.output;
  }
}

// A closed standard error loses messages and nothing else; no file is opened in its place.
TEST_F(Output, StandardErrorMayBeClosed) {
  const Ended ended = Run("train " + At("c.yaml") + " --run " + At("r") + " 2>&- <&-");
  EXPECT_EQ(ended.status, 0);
  EXPECT_EQ(ended.output, At("r") + "\n");
  EXPECT_EQ(Shell("grep -rl 'step 2' " + At("r")).output, "");
}

TEST_F(Output, AReaderThatHasEnoughIsNoMessage) {
  for (const char* c : {"blocks --json", "completion bash", "--help", "configs quickstart"}) {
    const Ended ended =
        Shell(std::string("bash -c '{ ") + kProgram + " " + c + "; echo code $? >&2; } 2>" +
              At("err") + " | true'; cat " + At("err"));
    EXPECT_TRUE(ended.output == "code 141\n" || ended.output == "code 0\n") << ended.output;
  }
  const Ended gone =
      Shell(std::string("bash -c '{ sleep 0.2; ") + kProgram +
            " blocks --json; echo code $? >&2; } 2>" + At("err") + " | true'; cat " + At("err"));
  EXPECT_EQ(gone.output, "code 141\n");
}

TEST_F(Output, VersionTellsWhatWasBuilt) {
  const Ended ended = Run("--version");
  EXPECT_EQ(ended.status, 0);
  for (const char* part :
       {"tessera 0.", "compiler: ", "instruction sets: avx2", "in use: avx", "CUDA: "})
    EXPECT_NE(ended.output.find(part), std::string::npos) << ended.output;
}

}  // namespace
}  // namespace tessera
