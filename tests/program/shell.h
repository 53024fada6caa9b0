#ifndef TESSERA_TESTS_PROGRAM_SHELL_H_
#define TESSERA_TESTS_PROGRAM_SHELL_H_

#include <sys/wait.h>

#include <cstdio>
#include <string>

namespace tessera::testing {

struct Ended {
  int status;  // -1 where a signal ended it
  std::string output;
};

// Runs a command in the root of the source tree. Its output is what comes on standard output; write
// 2>&1 to have the errors too.
inline Ended Shell(const std::string& command) {
  FILE* pipe =
      popen(("cd '" TESSERA_SOURCE_DIR "' && { " + command + " ; } </dev/null").c_str(), "r");
  std::string output;
  char buffer[4096];
  while (const size_t got = fread(buffer, 1, sizeof buffer, pipe)) output.append(buffer, got);
  const int status = pclose(pipe);
  return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, output};
}

}  // namespace tessera::testing

#endif  // TESSERA_TESTS_PROGRAM_SHELL_H_
