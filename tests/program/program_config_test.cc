#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "tests/program/shell.h"
#include "tests/temporary_folder.h"

// What the program makes of a config beside its keys: data replaced on the command line, settings
// hardly meant, sizes that no machine has.

namespace tessera {
namespace {

using testing::Ended;
using testing::Shell;

constexpr const char* kProgram = TESSERA_BINARY_DIR "/tessera";

class ProgramConfig : public ::testing::Test {
 protected:
  ProgramConfig() {
    std::string text;
    for (int i = 0; i < 300; ++i) text += "line " + std::to_string(i) + " of the text\n";
    Write("text.txt", text);
    Write("c.yaml", "model: {d_model: 32, layers: [{gla: {heads: 2}}]}\ntrain: {data: {text: " +
                        At("text.txt") +
                        "}, steps: 6, batch: 2, seq: 32, warmup: 2, eval_every: 3}\n");
  }
  void Write(const std::string& name, const std::string& text) { std::ofstream(At(name)) << text; }
  std::string At(const std::string& name) { return folder_.path(name); }
  Ended Tessera(const std::string& arguments) {
    return Shell(std::string(kProgram) + " " + arguments + " 2>/dev/null");
  }
  // What a command that fails with `status` says, without the line of the device.
  std::string Error(const std::string& arguments, int status) {
    Ended out = Shell(std::string(kProgram) + " " + arguments + " 2>&1 >/dev/null");
    EXPECT_EQ(out.status, status) << arguments;
    if (out.output.rfind("device ", 0) == 0) out.output.erase(0, out.output.find('\n') + 1);
    return out.output;
  }
  std::string Train(const std::string& more) {
    return Error("train " + At("c.yaml") + " --run " + At("run") + " " + more, 2);
  }

  TemporaryFolder folder_;
};

// A config's data is taken away, or replaced, on the command line.
TEST_F(ProgramConfig, DataOfAConfigIsReplacedOnTheCommandLine) {
  EXPECT_EQ(Train("'~train.data.text'"),
            "tessera: no data: set train.data.text, train.data.jsonl or train.data.tokens to a "
            "file\n");
  Write("d #1.jsonl", "{\"text\": \"" + std::string(400, 'x') + "\"}\n");
  const std::string own = " 'train.data.jsonl=" + At("d #1.jsonl") + "' train.data.val_fraction=0";
  EXPECT_NE(Train(own).find("more than one of text, jsonl, tokens"), std::string::npos);
  const Ended ended =
      Tessera("train " + At("c.yaml") + " '~train.data.text'" + own + " --run " + At("own"));
  EXPECT_EQ(ended.status, 0);
  EXPECT_NE(Shell("cat " + At("own") + "/config.yaml").output.find("jsonl: \"" + At("d #1.jsonl")),
            std::string::npos);
}

TEST_F(ProgramConfig, WhatIsHardlyMeantIsAWarning) {
  const auto said = [&](const std::string& more) {
    return Shell(std::string(kProgram) + " describe " + At("c.yaml") + " " + more +
                 " 2>&1 >/dev/null")
        .output;
  };
  EXPECT_EQ(said(""), "");
  EXPECT_EQ(said("train.warmup=7"),
            "warning: train.warmup = 7 is longer than the run of 6 steps: the learning rate never "
            "reaches train.lr\n");
  EXPECT_NE(said("train.stop_at=1").find("train.warmup = 2 is longer than the run of 1 steps"),
            std::string::npos);
  EXPECT_EQ(said("train.stop_at=7"),
            "warning: train.stop_at = 7 is after the last step, 6: it changes nothing\n");
  EXPECT_EQ(said("train.eval_every=7 train.save_every=8"),
            "warning: train.eval_every = 7 exceeds the 6 steps of the run: only its end is "
            "validated\nwarning: train.save_every = 8 exceeds the 6 steps of the run: only its end "
            "is saved\n");
  EXPECT_EQ(said("'model.layers[0].share=a'"),
            "warning: share: a is the name of one layer alone: its weights are shared with none\n");
  const auto json =
      nlohmann::json::parse(Tessera("describe " + At("c.yaml") + " --json train.warmup=7").output);
  EXPECT_EQ(json["warnings"].size(), 1u);
}

// Sizes that no machine has are refused with words, whichever command they are given to.
TEST_F(ProgramConfig, AbsurdSizesAreRefused) {
  const std::string most = "9223372036854775807", half = "4611686018427387904";
  for (const std::string& more : std::vector<std::string>{
           "train.batch=" + half + " train.seq=4", "train.accumulate=" + half,
           "train.batch=" + most + " train.seq=1", "train.steps=" + most,
           "train.threads=4294967297", "--threads 2147483648",
           "'model.layers=[mlp: {d_ff: " + most + "}]'",
           "'model.layers=[moe: {shared: " + most + ", shared_d_ff: 2}]'",
           "'model.layers=[attention: {heads: 1, head_dim: " + half + ", rope: none}]'",
           "'model.layers=[mamba2: {d_state: 9000000000000000000, head_dim: 16}]'"})
    EXPECT_NE(Train(more).find(" in ["), std::string::npos) << more;
  // Each within its bounds, and together more than any memory.
  for (const std::string& more :
       {std::string("model.d_model=65536 'model.layers=[mlp: {d_ff: 16777216}]' "
                    "train.batch=1048576 train.seq=128"),
        std::string("model.d_model=65536 'model.layers=[repeat: 40, layers: [moe: {experts: 65536, "
                    "d_ff: 65536}]]'")})
    for (const char* command : {"describe", "train"}) {
      const Ended ended = Shell("ulimit -v 8000000; " + std::string(kProgram) + " " + command +
                                " " + At("c.yaml") + " " + more + " 2>&1");
      EXPECT_TRUE(ended.status == 0 || ended.status == 1 || ended.status == 2)
          << command << " " << more << ": " << ended.status << " " << ended.output;
      EXPECT_EQ(ended.output.find("internal error"), std::string::npos) << ended.output;
    }
  for (const char* more :
       {"--seq 9223372036854775807", "--tokens 4611686018427387904",
        "--d-model 4611686018427387904", "--rounds 4611686018427387904", "--threads 4294967297"})
    EXPECT_NE(Error(std::string("bench mlp ") + more, 2).find("in ["), std::string::npos) << more;
}

}  // namespace
}  // namespace tessera
