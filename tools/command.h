#ifndef TESSERA_TOOLS_COMMAND_H_
#define TESSERA_TOOLS_COMMAND_H_

#include <CLI/CLI.hpp>

// A file a subcommand: each adds itself to the program and leaves its exit code in `*code`:
// 0 done, 1 failed, 2 a mistake in the command line or the config.

namespace tessera {

void AddTrain(CLI::App* app, int* code);
void AddGenerate(CLI::App* app, int* code);
void AddDescribe(CLI::App* app, int* code);
void AddBench(CLI::App* app, int* code);
void AddBlocks(CLI::App* app, int* code);

}  // namespace tessera

#endif  // TESSERA_TOOLS_COMMAND_H_
