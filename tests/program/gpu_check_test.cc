#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>

#include "tests/program/shell.h"
#include "tests/temporary_folder.h"

// bench/gpu_check without a GPU: with stand-ins for the programs, of which one fails, hangs or is
// not there, and with the programs themselves on the GPU that the host plays.

namespace tessera::testing {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

// The three programs; FAULT says what goes wrong.
constexpr char kStandIn[] = R"sh(#!/bin/sh
here=$(dirname "$0")
case ${0##*/} in
bench_gpu)
  [ "$1" != --device ] || { echo 'a stand-in, sm_00, 1 GiB'; exit; }
  while [ "$1" != --out ]; do shift; done
  [ "$FAULT" != times_crash ] || kill -SEGV $$
  cp "$here/times.json" "$2"
  [ "$FAULT" != times_hang ] || sleep 600
  ;;
tessera_tests)
  [ "$1" != --gtest_list_tests ] || { [ "$FAULT" = no_tests ] || cat "$here/list"; exit; }
  for t in $(echo "${1#*=}" | tr : ' '); do
    echo "[ RUN      ] $t"
    case $FAULT-$t in
      test_hang-Linear*few_tokens) case $1 in *GlaScan*) ;; *) sleep 600 ;; esac ;;
      test_crash-*few_tokens) kill -SEGV $$ ;;
      test_fails-*few_tokens) echo "[  FAILED  ] $t (1 ms)"; continue ;;
    esac
    echo "[       OK ] $t (1 ms)"
  done
  ;;
tessera)
  while [ "$1" != --run ]; do shift; done
  mkdir -p "$2/checkpoints/step-1"
  case $FAULT-$2 in
    bits-*again) echo other ;;
    *) echo same ;;
  esac >"$2/checkpoints/step-1/model.safetensors"
  echo '{"loss": 5.5, "tokens_per_second": 10}' >"$2/metrics.jsonl"
  ;;
esac
)sh";
// The names that gpu_check asks for, as GoogleTest lists them.
constexpr char kList[] = R"(Norm/SimtOpContract.
  Holds/rms_prime  # GetParam() = rms_prime
Linear/SimtOpContract.
  Holds/few_tokens  # GetParam() = few_tokens
  Holds/one
GroupedLinear/SimtOpContract.
  Holds/idle_experts
Attention/SimtOpContract.
  Holds/grouped
SsdScan/SimtOpContract.
  Holds/chunks
GlaScan/SimtOpContract.
  Holds/documents
AttentionDecode/SimtOpContract.
  Holds/ring
CausalConv/SimtOpContract.
  Holds/blocks
Embedding/SimtOpContract.
  Holds/V11_D67
HeadLoss/SimtOpContract.
  Holds/R61_V37_D19
Experts/SimtOpContract.
  Holds/one_fused
Route/SimtOpContract.
  Holds/top2_of_8
Blocks/BlockContract.
  CudaKernelsOnTheHostAgree/gla_0
Simt/GpuSizesTest.
  AgreeWithTheCpuAndRepeat/add
WarpgroupProductSimt.
  GradientsOfInputs
)";
constexpr char kTimes[] = R"({"device": "a stand-in, sm_00, 1 GiB", "copy_bytes_per_second": 1e12,
"bf16_flops_per_second": 1e14, "fp32_flops_per_second": 1e13, "cases": [{"name": "add", "dtype": "bf16",
"shape": {"rows": 2}, "forward": {"seconds": 1e-3, "limit_seconds": 5e-4}}]}
)";

std::string Text(const fs::path& file) {
  std::ifstream in(file);
  return {std::istreambuf_iterator<char>(in), {}};
}

struct Outcome {
  int status;
  json done;
  std::string output;
  std::string Status(const char* step) const {
    return done.at("steps").at(step).at("status").get<std::string>();
  }
  std::string Why(const char* step) const {
    return done.at("steps").at(step).value("why", std::string());
  }
};

class GpuCheck : public ::testing::Test {
 protected:
  GpuCheck() {
    fs::create_directories(build() + "/data");
    std::ofstream(build() + "/list") << kList;
    std::ofstream(build() + "/times.json") << kTimes;
    std::ofstream(build() + "/data/english.txt") << "text\n";
    // A peer that is not there, wherever this runs.
    fs::create_directories(folder_ / "peers");
    std::ofstream(folder_ / "peers/torch.py") << "raise ImportError('no torch here')\n";
    // compute-sanitizer as far as gpu_check sees it.
    fs::create_directories(folder_ / "bin");
    Script(folder_ / "bin/compute-sanitizer",
           "#!/bin/sh\nshift 4\n\"$@\"; status=$?\n"
           "echo '========= ERROR SUMMARY: 0 errors'\nexit $status\n");
    for (const char* program : {"tessera", "tessera_tests", "bench_gpu"})
      Script(build() + "/" + program, kStandIn);
  }
  void SetUp() override {
    if (Shell("command -v python3 >/dev/null").status != 0) GTEST_SKIP() << "there is no python3";
  }
  static void Script(const fs::path& path, const std::string& text) {
    std::ofstream(path) << text;
    fs::permissions(path, fs::perms::owner_all);
  }
  std::string build() const { return (folder_ / "build").string(); }
  std::string out() const { return (folder_ / "out").string(); }

  Outcome Run(const std::string& fault, const std::string& more,
              const std::string& name = "a-stand-in") {
    fs::remove_all(out());
    const Ended ended =
        Shell("FAULT=" + fault + " PYTHONPATH=" + (folder_ / "peers").string() +
              " PATH=" + (folder_ / "bin").string() + ":$PATH python3 bench/gpu_check --build " +
              build() + " --out " + out() + " " + more + " 2>&1");
    Outcome o = {ended.status, json::parse(Text(out() + "/" + name + ".json"), nullptr, false),
                 ended.output};
    EXPECT_FALSE(o.done.is_discarded()) << o.output;
    return o;
  }
  const TemporaryFolder temporary_;
  const fs::path folder_ = temporary_.path("");
};

TEST_F(GpuCheck, AllIsRightAndAMissingPeerIsSaid) {
  const Outcome o = Run("none", "");
  EXPECT_EQ(o.status, 0) << o.output;
  EXPECT_TRUE(o.done.at("ok"));
  for (const char* step :
       {"machine", "memcheck", "tests", "sizes", "times", "training", "racecheck"})
    EXPECT_EQ(o.Status(step), "passed") << step << ": " << o.Why(step);
  EXPECT_EQ(o.done["steps"]["tests"]["passed"], 14);
  EXPECT_EQ(o.done["steps"]["memcheck"]["passed"], 12);
  EXPECT_EQ(o.Status("peers"), "not done");
  EXPECT_NE(o.Why("peers").find("no torch here"), std::string::npos) << o.Why("peers");
  EXPECT_NE(Text(out() + "/README.md").find("| add bf16 | rows=2 | 1.000 | 50 % |"),
            std::string::npos);
  EXPECT_NE(Shell("python3 -m tarfile -l " + out() + "/a-stand-in.logs.tar.xz")
                .output.find("logs/tests-000.log"),
            std::string::npos);
  EXPECT_EQ(std::distance(fs::directory_iterator(out()), {}), 3);
}

// What is wrong in one step is told, and the steps after it run.
TEST_F(GpuCheck, OneWrongTestIsNamed) {
  for (const auto& [fault, why] :
       {std::pair{"test_fails", "failed"}, std::pair{"test_crash", "ended by signal 11"},
        std::pair{"test_hang", "stopped after"}}) {
    const Outcome o = Run(fault, "--budget 25");
    EXPECT_EQ(o.status, 1) << o.output;
    EXPECT_FALSE(o.done.at("ok"));
    EXPECT_EQ(o.Status("tests"), "failed");
    const json& tests = o.done["steps"]["tests"];
    EXPECT_EQ(tests["passed"], 13) << fault;  // the others of its process too
    ASSERT_EQ(tests["failed"].size(), 1) << tests;
    EXPECT_EQ(
        tests["failed"]["Linear/SimtOpContract.Holds/few_tokens"].get<std::string>().find(why), 0)
        << tests;
    EXPECT_EQ(o.Status("times"), "passed");
    EXPECT_EQ(o.Status("training"), "passed");
  }
}

TEST_F(GpuCheck, NoTestsIsAFailure) {
  const Outcome o = Run("no_tests", "");
  EXPECT_EQ(o.status, 1) << o.output;
  for (const char* step : {"memcheck", "tests", "sizes", "racecheck"}) {
    EXPECT_EQ(o.Status(step), "failed");
    EXPECT_EQ(o.Why(step).find("no test is named "), 0) << o.Why(step);
  }
  EXPECT_EQ(o.Status("training"), "passed");
}

TEST_F(GpuCheck, TimesThatCrashOrHangCostNothingElse) {
  const Outcome crash = Run("times_crash", "");
  EXPECT_EQ(crash.status, 1) << crash.output;
  EXPECT_EQ(crash.Why("times"), "bench_gpu ended by signal 11, 0 cases done: ");
  EXPECT_EQ(crash.Status("tests"), "passed");
  EXPECT_EQ(crash.Status("training"), "passed");
  const Outcome hang = Run("times_hang", "--budget 10");
  EXPECT_EQ(hang.status, 1) << hang.output;
  EXPECT_EQ(hang.Why("times").find("bench_gpu stopped after"), 0) << hang.Why("times");
  EXPECT_EQ(hang.done["times"]["cases"].size(), 1);  // what it had done by then
  EXPECT_EQ(hang.Status("training"), "passed");
}

TEST_F(GpuCheck, OtherBitsTheSecondTimeAreAFailure) {
  const Outcome o = Run("bits", "");
  EXPECT_EQ(o.status, 1) << o.output;
  EXPECT_EQ(o.Why("training"), "the same run on the GPU has other weights the second time");
}

TEST_F(GpuCheck, ASpentBudgetAndAMissingProgramAreSaid) {
  const Outcome spent = Run("none", "--budget 0.1", "unknown-gpu");
  EXPECT_EQ(spent.status, 1) << spent.output;
  for (const auto& [name, step] : spent.done.at("steps").items())
    EXPECT_EQ(step.at("why"), "the budget of 0.1 s was spent") << name;
  fs::remove(build() + "/tessera");
  const Outcome missing = Run("none", "");
  EXPECT_EQ(missing.status, 1) << missing.output;
  EXPECT_NE(missing.Why("training").find("does not start"), std::string::npos)
      << missing.Why("training");
  EXPECT_EQ(missing.Status("times"), "passed");
}

// The programs themselves, by a pack in a bare folder, on the GPU of the host: what a real one will
// be asked, at sizes that are soon done.
TEST_F(GpuCheck, RehearsalOnTheHost) {
  const std::string pack = (folder_ / "pack").string(), bare = (folder_ / "bare").string();
  const std::string real = TESSERA_BINARY_DIR;
  ASSERT_EQ(Shell("mkdir -p " + pack + "/bench/peers " + pack + "/configs " + pack + "/data " +
                  bare + " && cp bench/gpu_check " + bare + " && cp bench/gpu_results.py " + pack +
                  "/bench && cp bench/peers/gpu_ops.py " + pack + "/bench/peers && cp " +
                  "configs/quickstart.yaml " + pack + "/configs && cp " + real + "/tessera " +
                  real + "/tessera_tests " + real + "/bench_gpu " + pack + " && cp " + real +
                  "/libtessera_host_gpu.so " + pack + "/libtessera_cuda.so && echo abc123 >" +
                  pack + "/commit && yes 'some text to be learnt' | head -c 100000 >" + pack +
                  "/data/english.txt && tar -C " + pack + " -cf " + bare + "/pack.tar .")
                .status,
            0);
  const Ended ended = Shell(
      "cd " + bare + " && TESSERA_CUDA_LIBRARY=" + real + "/libtessera_host_gpu.so PYTHONPATH=" +
      (folder_ / "peers").string() + " ./gpu_check --packed pack.tar --small --steps 2 --out out " +
      "--cases 'Norm/SimtOpContract.Holds/rms_*' --cases '*BlockContract.CudaKernels*/mlp_*' 2>&1");
  EXPECT_EQ(ended.status, 0) << ended.output;
  const json done = json::parse(Text(bare + "/out/the-host.json"), nullptr, false);
  ASSERT_FALSE(done.is_discarded()) << ended.output;
  EXPECT_EQ(done["commit"], "abc123");
  for (const char* step : {"machine", "tests", "sizes", "times", "training"})
    EXPECT_EQ(done["steps"][step]["status"], "passed") << ended.output;
  EXPECT_GT(done["steps"]["sizes"]["passed"], 20);
  EXPECT_GT(done["times"]["cases"].size(), 20u);
}

}  // namespace
}  // namespace tessera::testing
