#ifndef TESSERA_TOOLS_COMMAND_H_
#define TESSERA_TOOLS_COMMAND_H_

#include <CLI/CLI.hpp>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <functional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/sizes.h"
#include "kernels/dispatch.h"

// A file a subcommand: each adds itself to the program and leaves its exit code in `*code`.

namespace tessera {

// How the program ends.
enum ExitCode : int {
  kDone = 0,
  kFailed = 1,         // the world: files, memory, the GPU
  kMistake = 2,        // the command line or the config
  kBug = 70,           // Tessera itself: a check that did not hold (EX_SOFTWARE of sysexits.h)
  kInterrupted = 130,  // after saving
  kReaderGone = 141,   // whoever read standard output has enough, as in `tessera blocks | head -1`
};

void AddTrain(CLI::App* app, int* code);
void AddGenerate(CLI::App* app, int* code);
void AddDescribe(CLI::App* app, int* code);
void AddBench(CLI::App* app, int* code);
void AddBlocks(CLI::App* app, int* code);
void AddExport(CLI::App* app, int* code);
void AddEval(CLI::App* app, int* code);
void AddConfigs(CLI::App* app, int* code);
void AddPapers(CLI::App* app, int* code);
void AddTokenizer(CLI::App* app, int* code);
void AddCompletion(CLI::App* app, int* code);

// For an option's ->check. (The library's own ranges spell out the largest double in their
// message.)
CLI::Validator WholeNumber(int64_t least, int64_t most = INT64_MAX);

// --isa, of every command that computes.
void AddIsa(CLI::App* command);
// --device, of every command that computes on one.
void AddDevice(CLI::App* command, std::string* device);

// The device that is meant, open, and a line that says so; auto takes a GPU where one can be used.
absl::StatusOr<Device> OpenDevice(const std::string& wanted, std::string* line);

// Says what went wrong and gives the code back.
int Fail(const absl::Status& status, int code);
// The code of a status that reading files and configs gave: a mistake of the person, or a failure.
int CodeOf(const absl::Status& status);

// The one place that turns whatever is thrown into a message and a code. RunGuarded gives the code
// of `body`, or says what it threw and gives the code of that; after CatchAll, what is thrown where
// nobody can catch it (on a thread of the pool, in a destructor) ends the program the same way.
int RunGuarded(const std::function<int()>& body);
void CatchAll();

// Makes standard streams that are closed into ones that fail, so that no file of a run is opened in
// their place, and writes to a pipe that nobody reads into errors. Call it first.
void PrepareStreams();
// Whether what was written to standard output so far is lost: work whose only result goes there may
// end. CloseOutput tells.
bool OutputLost();
// Flushes and closes standard output. A command that did its work but could not write its result
// has failed: gives its code, and says why.
int CloseOutput(int code);

// "tessera 0.1.0 (a47f975)", the compiler, the instruction sets and the GPU.
std::string VersionText();
// The commit of a checkout, a47f975, with -dirty where it is not as committed; else the version.
std::string CommitText();

}  // namespace tessera

#endif  // TESSERA_TOOLS_COMMAND_H_
