#include "arch/config.h"

#include <gtest/gtest.h>

#include "arch/fields.h"
#include "core/rng.h"

namespace tessera {
namespace {

enum class Colour : uint8_t { kRed, kGreen };

struct Inner {
  double factor = 1;
  void Fields(FieldList& f) { f.Add("factor", factor, AtLeast(1), "stretch"); }
};

struct Sample {
  int64_t heads = 4;
  double lr = 1e-3;
  bool bias = false;
  std::string data = "x";
  std::optional<int64_t> window;
  Colour colour = Colour::kRed;
  Inner rope;
  std::optional<Inner> scaling;
  std::vector<double> list;
  void Fields(FieldList& f) {
    f.Add("heads", heads, AtLeast(1), "heads");
    f.Add("lr", lr, Positive(), "rate");
    f.Add("bias", bias, "bias");
    f.Add("data", data, "file");
    f.Add("window", window, AtLeast(1), "window");
    f.Add("colour", colour, {{"red", Colour::kRed}, {"green", Colour::kGreen}}, "colour");
    f.Add("rope", rope, "rope");
    f.Add("scaling", scaling, "scaling");
    f.Add("list", list, AnyNumber(), "numbers");
  }
};

std::string Mistake(const std::string& yaml) {
  Sample s;
  return std::string(ReadFields(yaml, s).message());
}

TEST(Config, EveryMistakeNamesItsPlaceItsValueAndTheFix) {
  EXPECT_EQ(Mistake("heads: 2\nhaeds: 8"),
            "text:2:1: unknown key 'haeds' in text; did you mean 'heads'? (known: heads, lr, bias, "
            "data, window, colour, rope, scaling, list)");
  EXPECT_EQ(Mistake("heads: many"), "text:1:8: heads: expected an integer >= 1, got 'many'");
  EXPECT_EQ(Mistake("heads: 0"), "text:1:8: heads: expected an integer >= 1, got '0'");
  EXPECT_EQ(Mistake("heads: 010"), "text:1:8: heads: expected an integer >= 1, got '010'");
  EXPECT_EQ(Mistake("heads: 1e3"),
            "text:1:8: heads: expected an integer >= 1, got '1e3'; write 1000");
  EXPECT_EQ(Mistake("heads: \"8\""),
            "text:1:8: heads: expected an integer >= 1, got the text \"8\"");
  EXPECT_EQ(Mistake("heads: 99999999999999999999"),
            "text:1:8: heads: expected an integer >= 1, got '99999999999999999999'");
  EXPECT_EQ(Mistake("heads:"), "text:1:1: heads: expected an integer >= 1, got nothing");
  EXPECT_EQ(Mistake("heads: [1]"), "text:1:8: heads: expected an integer >= 1, got a list");
  EXPECT_EQ(Mistake("bias: no"), "text:1:7: bias: expected true or false, got 'no'");
  EXPECT_EQ(Mistake("lr: .inf"), "text:1:5: lr: expected a number > 0, got '.inf'");
  EXPECT_EQ(Mistake("lr: 0"), "text:1:5: lr: expected a number > 0, got '0'");
  EXPECT_EQ(Mistake("colour: gren"),
            "text:1:9: colour: expected one of red, green, got 'gren'; did you mean 'green'?");
  EXPECT_EQ(Mistake("rope: {factor: 0.5}"), "text:1:16: factor: expected a number >= 1, got '0.5'");
  EXPECT_EQ(Mistake("rope: 3"), "text:1:7: rope: expected a map of keys, got '3'");
  EXPECT_EQ(Mistake("- 1"), "text:1:1: text: expected a map of keys, got a list");
}

TEST(Config, AllMistakesAreToldAtOnce) {
  EXPECT_EQ(Mistake("heads: x\nlr: y"),
            "text:1:8: heads: expected an integer >= 1, got 'x'\n"
            "text:2:5: lr: expected a number > 0, got 'y'");
}

TEST(Config, FormIsStrict) {
  EXPECT_EQ(Mistake("heads: 1\nheads: 2"),
            "text:2:1: key 'heads' is given twice; first at text:1:1");
  EXPECT_EQ(Mistake("rope: &a {factor: 2}"),
            "text:1:7: anchors (&name) are not supported; write the value out");
  EXPECT_EQ(Mistake("heads: !!int 3"), "text:1:8: tags (tag:yaml.org,2002:int) are not supported");
  EXPECT_EQ(Mistake("rope: {factor: 2"), "text:1:1: end of map flow not found");
  EXPECT_EQ(Mistake("<<: {heads: 1}").substr(0, 48),
            "text:1:1: merge keys (<<) are not supported; wri");
  EXPECT_NE(Mistake(std::string(100, '[')).find("nested deeper than 32"), std::string::npos);
}

TEST(Config, PrintsWhatParsesBackEqual) {
  Sample s;
  ASSERT_TRUE(
      ReadFields("heads: 8\nlr: 0.1\nbias: true\ndata: \"a: b #1\"\nwindow: 3\n"
                 "colour: green\nrope: {factor: 2.5}\nscaling: {factor: 7}\nlist: [1, -2.5e-7]",
                 s)
          .ok());
  EXPECT_EQ(s.data, "a: b #1");
  EXPECT_EQ(s.scaling->factor, 7);
  EXPECT_EQ(s.list[1], -2.5e-7);
  const std::string printed = PrintFields(s);
  Sample again;
  const absl::Status read = ReadFields(printed, again);
  ASSERT_TRUE(read.ok()) << read << printed;
  EXPECT_EQ(PrintFields(again), printed);
  EXPECT_EQ(again.lr, 0.1);
  ASSERT_TRUE(ReadFields("scaling: none\nwindow: none", again).ok());
  EXPECT_FALSE(again.scaling.has_value() || again.window.has_value());
}

TEST(Config, OverridesReachEveryPlaceOrSayWhatIsThere) {
  ConfigNode root =
      *ParseYaml("model:\n  layers:\n    - attention\n    - moe: {top_k: 2}\n", "f.yaml");
  EXPECT_TRUE(Override(&root, "model.layers[1].moe.top_k=1").ok());
  EXPECT_TRUE(Override(&root, "model.layers[0].attention.heads=2").ok());
  EXPECT_TRUE(Override(&root, "train.lr=1e-3").ok());
  EXPECT_EQ(PrintYaml(root),
            "model:\n  layers:\n    - attention: {heads: 2}\n    - moe: {top_k: 1}\n"
            "train: {lr: 1e-3}\n");
  const auto bad = [&](const std::string& s) { return std::string(Override(&root, s).message()); };
  EXPECT_EQ(bad("train.lr"), "command line: train.lr: expected key=value, such as train.lr=1e-3");
  EXPECT_EQ(bad("model.layers[7].moe=1"),
            "command line: model.layers[7].moe=1: model.layers has 2 entries, [0] to [1]");
  EXPECT_EQ(bad("train.lr.x=1"),
            "command line: train.lr.x=1: train.lr is a single value, so it has no key 'x'");
  EXPECT_EQ(bad("model.layers[x]=1").substr(0, 64),
            "command line: model.layers[x]=1: an index is a number in bracket");
  EXPECT_EQ(bad("train.lr="), "command line: train.lr=: no value after '='");
  EXPECT_EQ(bad("a..b=1").substr(0, 36), "command line: a..b=1: an empty key; ");
}

// Whatever the bytes, the answer is a tree or an error with a place.
TEST(Config, DamagedTextNeverCrashes) {
  const std::string good =
      "model:\n  d_model: 64\n  layers:\n    - repeat: 2\n      layers: [{gla: {heads: 2}}, mlp]\n"
      "train: {lr: 1e-3, data: {text: \"a\\n\"}}\n";
  const Rng rng(1, "damage");
  int errors = 0;
  for (uint64_t i = 0; i < 3000; ++i) {
    std::string text = good;
    for (uint64_t k = 0; k <= rng.Below(i * 8, 4); ++k) {
      const size_t at = rng.Below(i * 8 + 2 * k + 1, text.size());
      const char with = " \n:-{}[],&*!'\"#a0~\\\t%@|>?"[rng.Below(i * 8 + 2 * k + 2, 25)];
      text[at] = with;
    }
    const absl::StatusOr<ConfigNode> tree = ParseYaml(text, "f.yaml");
    if (tree.ok()) {
      const std::string printed = PrintYaml(*tree);
      const absl::StatusOr<ConfigNode> again = ParseYaml(printed, "f.yaml");
      ASSERT_TRUE(again.ok()) << again.status() << "\n" << text << "\n--\n" << printed;
      EXPECT_EQ(PrintYaml(*again), printed);
      continue;
    }
    ++errors;
    EXPECT_EQ(tree.status().message().substr(0, 7), "f.yaml:") << tree.status();
  }
  EXPECT_GT(errors, 500);
}

}  // namespace
}  // namespace tessera
