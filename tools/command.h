#ifndef TESSERA_TOOLS_COMMAND_H_
#define TESSERA_TOOLS_COMMAND_H_

#include <CLI/CLI.hpp>
#include <cstdint>
#include <cstdio>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/dispatch.h"

// A file a subcommand: each adds itself to the program and leaves its exit code in `*code`:
// 0 done, 1 failed, 2 a mistake in the command line or the config.

namespace tessera {

void AddTrain(CLI::App* app, int* code);
void AddGenerate(CLI::App* app, int* code);
void AddDescribe(CLI::App* app, int* code);
void AddBench(CLI::App* app, int* code);
void AddBlocks(CLI::App* app, int* code);
void AddEval(CLI::App* app, int* code);
void AddConfigs(CLI::App* app, int* code);
void AddTokenizer(CLI::App* app, int* code);
void AddCompletion(CLI::App* app, int* code);

// For an option's ->check. (The library's own ranges spell out the largest double in their
// message.)
inline CLI::Validator WholeNumber(int64_t least, int64_t most = INT64_MAX) {
  return CLI::Validator(
      [=](const std::string& text) {
        int64_t value = 0;
        if (CLI::detail::lexical_cast(text, value) && value >= least && value <= most)
          return std::string();
        return "expected a whole number " +
               (most == INT64_MAX
                    ? ">= " + std::to_string(least)
                    : "in [" + std::to_string(least) + ", " + std::to_string(most) + "]") +
               ", got '" + text + "'";
      },
      "", "");
}

// --isa, of every command that computes.
inline void AddIsa(CLI::App* command) {
  command
      ->add_option_function<std::string>(
          "--isa",
          [](const std::string& isa) {
            if (isa != "auto" && !SetIsa(isa == "avx512" ? Isa::kAvx512 : Isa::kAvx2))
              throw CLI::ValidationError("--isa", isa + " is not supported by this processor");
          },
          "auto, avx2 or avx512")
      ->check(CLI::IsMember({"auto", "avx2", "avx512"}));
}

// --device, of every command that computes on one.
inline void AddDevice(CLI::App* command, std::string* device) {
  command->add_option("--device", *device, "auto, cpu or cuda")
      ->check(CLI::IsMember({"auto", "cpu", "cuda"}));
}

// The device that is meant, open, and a line that says so; auto takes a GPU where one can be used.
inline absl::StatusOr<Device> OpenDevice(const std::string& wanted, std::string* line) {
  *line = std::string("device cpu (") + Name(ActiveIsa()) + ")";
  if (wanted == "cpu") return Device::kCpu;
  const absl::Status cuda = OpenCuda();
  if (cuda.ok()) {
    *line = "device cuda (" + Cuda().Name() + ")";
    return Device::kCuda;
  }
  if (wanted == "cuda") return cuda;
  *line += absl::IsNotFound(cuda) ? "; this build has no CUDA kernels"
                                  : "; no GPU: " + std::string(cuda.message());
  return Device::kCpu;
}

// Says what went wrong and gives the code back.
inline int Fail(const absl::Status& status, int code) {
  std::fprintf(stderr, "tessera: %s\n", std::string(status.message()).c_str());
  return code;
}

// The code of a status that reading files and configs gave: a mistake of the person, or a failure.
inline int CodeOf(const absl::Status& status) {
  return status.code() == absl::StatusCode::kInvalidArgument ? 2 : 1;
}

}  // namespace tessera

#endif  // TESSERA_TOOLS_COMMAND_H_
