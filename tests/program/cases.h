#ifndef TESSERA_TESTS_PROGRAM_CASES_H_
#define TESSERA_TESTS_PROGRAM_CASES_H_

#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>
#include <string>

#include "absl/strings/str_cat.h"
#include "tests/program/shell.h"
#include "tests/temporary_folder.h"

// Inputs from the wild that a program must survive: each case is a script that a person could type,
// begun in a folder with a text en.txt and a small config t.yaml, and the outcome that is right.

namespace tessera {

class Cases : public ::testing::Test {
 protected:
  Cases() {
    std::ofstream text(folder_.path("en.txt"));
    for (int i = 0; i < 2600; ++i) text << "line " << i * i % 977 << " of the text\n";
    std::ofstream(folder_.path("t.yaml"))
        << "model: {d_model: 16, layers: [attention: {heads: 2}, mlp]}\n"
           "train: {data: {text: en.txt}, steps: 6, batch: 2, seq: 32, warmup: 0}\n";
  }

  // Runs a bash script in the folder, $TESSERA being the program and $train the usual training; it
  // has what the script says on either output.
  testing::Ended Sh(const std::string& script) {
    std::ofstream(folder_.path("script.sh"))
        << "cd '" << folder_.path("") << "'\nTESSERA='" TESSERA_BINARY_DIR "/tessera'\n"
        << "train=\"$TESSERA train t.yaml --run r --threads 1 --quiet\"\n"
        << script;
    return testing::Shell("bash '" + folder_.path("script.sh") + "' 2>&1");
  }
  // The same for a script whose last line tells what happened.
  std::string Last(const std::string& script) {
    std::string out = Sh(script).output;
    while (!out.empty() && out.back() == '\n') out.pop_back();
    return out.substr(out.rfind('\n') + 1);
  }
  static bool Has(const std::string& program) {
    return testing::Shell("command -v " + program + " >/dev/null").status == 0;
  }

  TemporaryFolder folder_;
};

#define EXPECT_SAYS(text, part) EXPECT_PRED_FORMAT2(::testing::IsSubstring, part, text)

}  // namespace tessera

#endif  // TESSERA_TESTS_PROGRAM_CASES_H_
