#ifndef TESSERA_TOOLS_COMMAND_H_
#define TESSERA_TOOLS_COMMAND_H_

#include <CLI/CLI.hpp>
#include <cstdio>
#include <string>

#include "absl/status/status.h"

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
