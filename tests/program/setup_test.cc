#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "tests/program/shell.h"

// The scripts that a newcomer meets first.

namespace tessera {
namespace {

using testing::Ended;

Ended Shell(const std::string& command) { return testing::Shell(command + " 2>&1"); }

TEST(Setup, UnknownOptionsAreMistakes) {
  const Ended setup = Shell("./setup --norun");
  EXPECT_EQ(setup.status, 2);
  EXPECT_EQ(setup.output.rfind("setup: unknown option --norun\nusage: ./setup", 0), 0)
      << setup.output;
  const Ended test = Shell("./test --all");
  EXPECT_EQ(test.status, 2);
  EXPECT_EQ(test.output, "test: unknown option --all; usage: ./test [FILTER]\n");
}

TEST(Setup, HelpNamesEveryOption) {
  const Ended help = Shell("./setup --help");
  EXPECT_EQ(help.status, 0);
  for (const char* option : {"--no-run", "--fresh", "--help"})
    EXPECT_NE(help.output.find(option), std::string::npos) << option;
}

class EnglishText : public ::testing::Test {
 protected:
  void SetUp() override { std::filesystem::create_directories(folder_); }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  void Write(const char* page, const std::string& html) {
    std::ofstream(folder_ + "/" + page) << html;
  }
  Ended Extract() { return Shell("configs/english_text '" + folder_ + "'"); }

  const std::string folder_ = ::testing::TempDir() + "english_text";
  const std::string long_ = std::string(60, 'x') + " words &amp; words " + std::string(60, 'y');
};

TEST_F(EnglishText, KeepsProseInTheOrderOfThePagesAndDropsTheRest) {
  Write("b.html", "<p>Second " + long_ + ".</p>");
  Write("a.html",
        "<table><tr><td>cell</td></tr></table><p>First\n <code>set</code>  "
        "\xe2\x80\x9cx\xe2\x80\x9d " +
            long_ + ".</p><p>Too short.</p><p class=\"signature\">Not prose " + long_ +
            ".</p><p>Not a sentence " + long_ +
            "</p><p>Gr\xc3\xbc\xc3\x9f"
            "e " +
            long_ + ".</p>");
  Write("release-1.html", "<p>A listing of changes " + long_ + ".</p>");
  const std::string text = std::string(60, 'x') + " words & words " + std::string(60, 'y');
  const Ended ended = Extract();
  EXPECT_EQ(ended.status, 0);
  EXPECT_EQ(ended.output, "First set \"x\" " + text + ".\n\nSecond " + text + ".\n\n");
}

TEST_F(EnglishText, AnEmptyFolderIsAnError) {
  const Ended ended = Extract();
  EXPECT_NE(ended.status, 0);
  EXPECT_EQ(ended.output, "english_text: no .html files in " + folder_ + "\n");
}

}  // namespace
}  // namespace tessera
