#include "config/fields.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "config/map_reader.h"

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
  std::vector<int64_t> widths;
  std::vector<std::string> files;
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
    f.Add("widths", widths, OneOf({16, 32}), "widths");
    f.Add("files", files, "files");
  }
};

std::string Mistake(const std::string& yaml) {
  Sample s;
  return std::string(ReadFields(yaml, s).message());
}

TEST(Fields, EveryMistakeNamesItsPlaceItsValueAndTheFix) {
  EXPECT_EQ(Mistake("heads: 2\nhaeds: 8"),
            "text:2:1: unknown key 'haeds' in text; did you mean 'heads'? (known: heads, lr, bias, "
            "data, window, colour, rope, scaling, list, widths, files)");
  EXPECT_EQ(Mistake("heads: many"), "text:1:8: heads: expected an integer >= 1, got 'many'");
  EXPECT_EQ(Mistake("heads: 0"), "text:1:8: heads: expected an integer >= 1, got '0'");
  EXPECT_EQ(Mistake("heads: 1e3"),
            "text:1:8: heads: expected an integer >= 1, got '1e3'; write 1000");
  EXPECT_EQ(Mistake("heads: \"8\""),
            "text:1:8: heads: expected an integer >= 1, got the text \"8\"; "
            "write it without quotes");
  EXPECT_EQ(Mistake("heads: 99999999999999999999"),
            "text:1:8: heads: expected an integer >= 1, got '99999999999999999999'");
  EXPECT_EQ(Mistake("heads:"), "text:1:1: heads: expected an integer >= 1, got nothing");
  EXPECT_EQ(Mistake("heads: [1]"), "text:1:8: heads: expected an integer >= 1, got a list");
  EXPECT_EQ(Mistake("bias: no"), "text:1:7: bias: expected true or false, got 'no'; write false");
  EXPECT_EQ(Mistake("lr: .inf"), "text:1:5: lr: expected a number > 0, got '.inf'");
  EXPECT_EQ(Mistake("lr: 0"), "text:1:5: lr: expected a number > 0, got '0'");
  EXPECT_EQ(Mistake("colour: gren"),
            "text:1:9: colour: expected one of red, green, got 'gren'; did you mean 'green'?");
  EXPECT_EQ(Mistake("rope: {factor: 0.5}"), "text:1:16: factor: expected a number >= 1, got '0.5'");
  EXPECT_EQ(Mistake("rope: 3"), "text:1:7: rope: expected a map of keys, got '3'");
  EXPECT_EQ(Mistake("- 1"), "text:1:1: text: expected a map of keys, got a list");
}

TEST(Fields, AllMistakesAreToldAtOnce) {
  EXPECT_EQ(Mistake("heads: x\nlr: y"),
            "text:1:8: heads: expected an integer >= 1, got 'x'\n"
            "text:2:5: lr: expected a number > 0, got 'y'");
}

TEST(Fields, EverySpellingThatYamlReadsOtherwiseIsAMistakeThatSaysWhatToWrite) {
  const auto integer = [](const std::string& text) {
    const std::string begin = "text:1:8: heads: expected an integer >= 1, got '" + text + "'";
    const std::string message = Mistake("heads: " + text);
    EXPECT_EQ(message.substr(0, begin.size()), begin);
    return message.substr(std::min(begin.size(), message.size()));
  };
  EXPECT_EQ(integer("010"), "; write 10");
  EXPECT_EQ(integer("0x8"), "; write 8");
  EXPECT_EQ(integer("0o10"), "; write 8");
  EXPECT_EQ(integer("1_000"), "; write 1000");
  EXPECT_EQ(integer("1,000"), "; write 1000");
  EXPECT_EQ(integer("1e3"), "; write 1000");
  EXPECT_EQ(integer("8.0"), "; write 8");
  EXPECT_EQ(integer("8.5"), "");
  EXPECT_EQ(integer("+-8"), "");
  EXPECT_EQ(integer("0x"), "");
  EXPECT_EQ(integer("99999999999999999999"), "");
  EXPECT_EQ(Mistake("bias: yes"), "text:1:7: bias: expected true or false, got 'yes'; write true");
  EXPECT_EQ(Mistake("bias: off"), "text:1:7: bias: expected true or false, got 'off'; write false");
  EXPECT_EQ(Mistake("bias: True"),
            "text:1:7: bias: expected true or false, got 'True'; write true");
  EXPECT_EQ(Mistake("bias: maybe"), "text:1:7: bias: expected true or false, got 'maybe'");
  EXPECT_EQ(Mistake("lr: 1_0.5"), "text:1:5: lr: expected a number > 0, got '1_0.5'; write 10.5");
  EXPECT_EQ(Mistake("lr: 01"), "text:1:5: lr: expected a number > 0, got '01'; write 1");
  EXPECT_EQ(Mistake("lr: nan"), "text:1:5: lr: expected a number > 0, got 'nan'");
  EXPECT_EQ(Mistake("lr: 1e400"), "text:1:5: lr: expected a number > 0, got '1e400'");
  EXPECT_EQ(Mistake("lr: null"), "text:1:5: lr: expected a number > 0, got nothing");
  EXPECT_EQ(Mistake("window: 0"), "text:1:9: window: expected an integer >= 1 or none, got '0'");
  EXPECT_EQ(Mistake("widths: 16"),
            "text:1:9: widths: expected a list of integers, one of 16, 32, got '16'; write [16]");
  EXPECT_EQ(Mistake("widths: [16, 24]"),
            "text:1:14: widths[1]: expected an integer, one of 16, 32, got '24'");
  EXPECT_EQ(Mistake("files: [a, {b: c}]"), "text:1:12: files[1]: expected text, got a map");
  EXPECT_EQ(Mistake("rope: {factor:2}"),
            "text:1:8: unknown key 'factor:2' in rope; did you mean 'factor'? (known: factor); "
            "write a space after the ':'");
}

TEST(Fields, PrintsWhatParsesBackEqual) {
  Sample s;
  ASSERT_TRUE(ReadFields("heads: 8\nlr: 0.1\nbias: true\ndata: \"a: b #1\"\nwindow: 3\n"
                         "colour: green\nrope: {factor: 2.5}\nscaling: {factor: 7}\nlist: [1, "
                         "-2.5e-7]\nwidths: [16]\nfiles: [\"\", b]",
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
  ASSERT_TRUE(ReadFields("scaling: {factor: 2}\nwindow: 7", again).ok());
  ASSERT_TRUE(ReadFields("scaling: ~\nwindow:", again).ok());
  EXPECT_FALSE(again.scaling.has_value() || again.window.has_value());
}

TEST(Fields, NumbersPrintAllTheirDigits) {
  for (const double lr :
       {0.1, 1.0 / 3, 5e-324, 1.7976931348623157e308, 3e-3, 1e22, 123456789.125}) {
    Sample s, again;
    s.lr = lr;
    ASSERT_TRUE(ReadFields(PrintFields(s), again).ok()) << PrintFields(s);
    EXPECT_EQ(again.lr, lr);
  }
}

// PyYAML and other readers of YAML 1.1 see in a printed config what is meant.
TEST(Fields, OtherReadersOfYamlSeeTheSame) {
  Sample s;
  s.list = {1e-5, 1e-8, 3e-3, 1e22, -2.5e-7, 1e5, 0.1, 1.0 / 3, 1e15};
  s.files = {"on",    "OFF",        "yes",        "No",   "n",        "Null",  "none", "~",
             "true",  "2024-01-01", "010",        "0x1f", "0b11",     "1_000", "1e3",  "1.5",
             ".5",    ".inf",       "-.nan",      "+1",   "12:30:45", "=",     "<<",   "",
             "plain", "a/b.txt",    "2024/a.txt", "it's", "a: b",     "#a",    "[a",   "1 2"};
  s.data = "no";
  const std::string printed = PrintFields(s);
  EXPECT_NE(printed.find("[1.0e-05, 1.0e-08, 0.003, 1.0e+22, -2.5e-07, 100000, 0.1, "),
            std::string::npos)
      << printed;
  EXPECT_NE(printed.find("window: null\n"), std::string::npos) << printed;
  EXPECT_NE(printed.find("plain"), std::string::npos);
  EXPECT_EQ(printed.find("\"plain\""), std::string::npos) << printed;
  Sample again;
  ASSERT_TRUE(ReadFields(printed, again).ok()) << printed;
  EXPECT_EQ(again.list, s.list);
  EXPECT_EQ(again.files, s.files);
  EXPECT_EQ(again.data, "no");
  if (std::system("python3 -c 'import yaml' 2>/dev/null") != 0)
    GTEST_SKIP() << "no PyYAML to read it with";
  const std::string path = ::testing::TempDir() + "/tessera_other_reader.yaml";
  std::ofstream(path) << printed;
  const std::string types =
      "python3 -c 'import yaml, sys; c = yaml.safe_load(open(sys.argv[1])); "
      "assert all(type(x) in (float, int) for x in c[\"list\"]), c[\"list\"]; "
      "assert all(type(x) is str for x in c[\"files\"] + [c[\"data\"]]), c; "
      "assert c[\"window\"] is None' " +
      path;
  EXPECT_EQ(std::system(types.c_str()), 0) << printed;
  std::filesystem::remove(path);
}

enum class Kind : uint8_t { kNone, kLinear, kBent };
struct Variant {
  Kind kind = Kind::kNone;
  double slope = 1, bend = 2;
  void Fields(FieldList& f) {
    f.Add("kind", kind, {{"none", Kind::kNone}, {"linear", Kind::kLinear}, {"bent", Kind::kBent}},
          "kind");
    f.Add("slope", slope, AnyNumber(), "slope").OnlyWith("a `kind` other than none", [this] {
      return kind != Kind::kNone;
    });
    f.Add("bend", bend, AnyNumber(), "bend").OnlyWith("`kind: bent`", [this] {
      return kind == Kind::kBent;
    });
  }
};
struct Holder {
  std::optional<Variant> v = Variant{};
  void Fields(FieldList& f) { f.Add("v", v, "variant"); }
};

TEST(Fields, AKeyThatItsSiblingsMakeDeadIsAMistake) {
  const auto mistake = [](const std::string& yaml) {
    Holder h;
    return std::string(ReadFields(yaml, h).message());
  };
  EXPECT_EQ(mistake("v: {kind: bent, slope: 2, bend: 3}"), "");
  EXPECT_EQ(mistake("v: {bend: 3, kind: bent}"), "") << "the order is of no matter";
  EXPECT_EQ(mistake("v: {slope: 2}"),
            "text:1:5: slope has no effect here: it needs a `kind` other than none; take it away");
  EXPECT_EQ(mistake("v: {kind: linear, bend: 3}"),
            "text:1:19: bend has no effect here: it needs `kind: bent`; take it away");
  EXPECT_EQ(mistake("v: {kind: linear, bend: 2}"), "") << "the default changes nothing";
  EXPECT_EQ(mistake("v: {kind: bnet, bend: 2}"),
            "text:1:11: kind: expected one of none, linear, bent, got 'bnet'; did you mean 'bent'?")
      << "one mistake is told once";
  // What is printed has the living keys alone and reads back.
  Holder h;
  ASSERT_TRUE(ReadFields("v: {kind: linear, slope: 5}", h).ok());
  EXPECT_EQ(PrintFields(h), "v: {kind: linear, slope: 5}\n");
  EXPECT_EQ(mistake(PrintFields(h)), "");
  // The manual has them all.
  Holder fresh;
  FieldList fields;
  fresh.Fields(fields);
  const std::vector<ManualRow> rows = ManualRows(fields);
  ASSERT_EQ(rows.size(), 4u);
  EXPECT_EQ(rows[3].key, "v.bend");
  EXPECT_EQ(rows[3].default_text, "2");
  EXPECT_EQ(rows[3].needs, "`kind: bent`");
}

TEST(Fields, AKeyOfAMapBelowIsFound) {
  EXPECT_EQ(Mistake("factor: 2").substr(0, 64),
            std::string("text:1:1: unknown key 'factor' in text; did you mean 'rope.factor'?")
                .substr(0, 64));
}

TEST(Fields, RangesHoldTheirEnds) {
  EXPECT_TRUE(FromBelow(0, 1).Holds(0) && !FromBelow(0, 1).Holds(1));
  EXPECT_EQ(FromBelow(0, 1).ToString(), " in [0, 1)");
  EXPECT_TRUE(Between(0, 1).Holds(1) && !Between(0, 1).Holds(1.5));
  EXPECT_EQ(Between(0, 1).ToString(), " in [0, 1]");
  EXPECT_TRUE(!Positive().Holds(0) && AtLeast(0).Holds(0));
  EXPECT_TRUE(OneOf({1, 4}).Holds(4) && !OneOf({1, 4}).Holds(2));
}

TEST(Fields, ManualRowsTellEveryKey) {
  Sample s;
  FieldList fields;
  s.Fields(fields);
  std::string rows;
  for (const ManualRow& r : ManualRows(fields))
    rows += r.key + " | " + r.type + " | " + r.default_text + " | " + r.doc + "\n";
  EXPECT_EQ(rows,
            "heads | an integer >= 1 | 4 | heads\n"
            "lr | a number > 0 | 0.001 | rate\n"
            "bias | true or false | false | bias\n"
            "data | text | x | file\n"
            "window | an integer >= 1 or none | none | window\n"
            "colour | one of red, green | red | colour\n"
            "rope | a map |  | rope\n"
            "rope.factor | a number >= 1 | 1 | stretch\n"
            "scaling | a map or none | none | scaling\n"
            "scaling.factor | a number >= 1 | 1 | stretch\n"
            "list | a list of numbers | [] | numbers\n"
            "widths | a list of integers, one of 16, 32 | [] | widths\n"
            "files | a list of texts | [] | files\n");
}

// A layer as a model reads it: options beside one key that names a block.
std::string ReadLayer(const std::string& yaml) {
  const ConfigNode node = *ParseYaml(yaml, "f");
  ErrorList errors;
  MapReader r(node, "layer", &errors);
  Inner block;
  int64_t repeat = 1;
  FieldList options, keys;
  options.Add("repeat", repeat, AtLeast(1), "times");
  block.Fields(keys);
  r.TakeFields(options);
  if (const ConfigNode* n = r.Require("gla", "a block")) ReadMap(*n, keys, "gla", &errors);
  r.Take("name");
  r.Finish();
  ReportUnread(node, &errors);
  return std::string(errors.ToStatus().message());
}

TEST(MapReader, EveryKeyIsTakenOrAMistake) {
  EXPECT_EQ(ReadLayer("repeat: 2\ngla: {factor: 2}"), "");
  EXPECT_EQ(ReadLayer("{gla: {}}"), "");
  EXPECT_EQ(ReadLayer("{gla: ~}"), "");
  EXPECT_EQ(ReadLayer("repat: 2\ngla: {fator: 2}"),
            "f:2:7: unknown key 'fator' in gla; did you mean 'factor'? (known: factor)\n"
            "f:1:1: unknown key 'repat' in layer; did you mean 'repeat'? (known: repeat, gla, "
            "name)");
  EXPECT_EQ(ReadLayer("repeat: 0"),
            "f:1:9: repeat: expected an integer >= 1, got '0'\n"
            "f:1:1: layer: expected the key 'gla': a block");
  EXPECT_EQ(ReadLayer("[1]"), "f:1:1: layer: expected a map of keys, got a list");
}

TEST(MapReader, AValueThatNobodyReadIsAMistake) {
  EXPECT_EQ(ReadLayer("gla: {}\nname: [x, y]"),
            "f:2:8: 'x' has no effect here: nothing reads it; take it away\n"
            "f:2:11: 'y' has no effect here: nothing reads it; take it away");
}

}  // namespace
}  // namespace tessera
