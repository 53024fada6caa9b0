#include "config/config.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>

#include "config/scalars.h"
#include "core/rng.h"

namespace tessera {
namespace {

std::string Mistake(const std::string& yaml) {
  return std::string(ParseYaml(yaml, "f").status().message());
}

ConfigNode Parsed(const std::string& yaml) {
  absl::StatusOr<ConfigNode> tree = ParseYaml(yaml, "f");
  EXPECT_TRUE(tree.ok()) << tree.status() << "\n" << yaml;
  return tree.ok() ? *tree : ConfigNode();
}

// Equal in all but the places, and in quotes only where they change the meaning.
bool Same(const ConfigNode& a, const ConfigNode& b) {
  if (a.kind != b.kind || a.text != b.text || (a.quoted && !b.quoted) ||
      a.items.size() != b.items.size() || a.entries.size() != b.entries.size())
    return false;
  for (size_t i = 0; i < a.items.size(); ++i)
    if (!Same(a.items[i], b.items[i])) return false;
  for (size_t i = 0; i < a.entries.size(); ++i)
    if (a.entries[i].key != b.entries[i].key || !Same(a.entries[i].value, b.entries[i].value))
      return false;
  return true;
}

TEST(Config, FormIsStrict) {
  EXPECT_EQ(Mistake("heads: 1\nheads: 2"), "f:2:1: key 'heads' is given twice; first at f:1:1");
  EXPECT_EQ(Mistake("a: {b: 1, \"b\": 2}"), "f:1:11: key 'b' is given twice; first at f:1:5");
  EXPECT_EQ(Mistake("rope: &a {factor: 2}"),
            "f:1:7: anchors (&name) are not supported; write the value out");
  EXPECT_EQ(Mistake("a: &x 1\nb: *x"),
            "f:1:4: anchors (&name) are not supported; write the value out\n"
            "f:2:4: aliases (*name) are not supported; write the value out");
  EXPECT_EQ(Mistake("heads: !!int 3"), "f:1:8: tags (tag:yaml.org,2002:int) are not supported");
  EXPECT_EQ(Mistake("<<: {heads: 1}"),
            "f:1:1: merge keys (<<) are not supported; write the keys out");
  EXPECT_EQ(Mistake("? [a]\n: 3"), "f:1:3: a key must be plain text, not a list");
  EXPECT_EQ(Mistake("~: 3"), "f:1:1: a key must be plain text, not nothing");
  EXPECT_EQ(Mistake(std::string(300, 'k') + ": 3"), "f:1:1: a key of 300 bytes; at most 256");
  EXPECT_EQ(Mistake("a: 1\n---\nb: 1"), "f:2:1: a second document; a config is one");
  EXPECT_EQ(Mistake(std::string(32, '[') + std::string(32, ']')), "");
  EXPECT_EQ(Mistake(std::string(33, '[') + std::string(33, ']')), "f:1:33: nested deeper than 32");
  EXPECT_EQ(Mistake(std::string(kMaxConfigBytes + 1, 'x')),
            "f:1:1: more than 1048576 bytes; this is no config");
  EXPECT_EQ(Mistake("a: 1\nb: \xff"), "f:2:4: byte 0xff: expected UTF-8 text");
  EXPECT_EQ(Mistake(std::string("a: \0", 4)), "f:1:4: byte 0x00: expected UTF-8 text");
}

TEST(Config, SyntaxErrorsHaveAPlaceAndAdvice) {
  EXPECT_EQ(Mistake("rope: {factor: 2"),
            "f:1:1: end of map flow not found (a '{' without its '}', or a missing comma)");
  EXPECT_EQ(Mistake("heads: 3\n lr: 4"),
            "f:2:4: illegal map value (a ':' that starts no value: check the indentation, or quote "
            "the text)");
  EXPECT_EQ(Mistake("heads: 3\n\tlr: 3"), "f:2:1: illegal tab when looking for indentation");
  EXPECT_EQ(Mistake("data: 'x"), "f:1:9: illegal EOF in scalar");
}

TEST(Config, FilesThatCannotBeReadSaySo) {
  const std::string dir = ::testing::TempDir();
  const std::string missing = dir + "/no_such_config.yaml";
  EXPECT_EQ(ReadYamlFile(missing).status().message(),
            missing +
                ": cannot be opened (No such file or directory); `tessera configs` lists "
                "those that come along");
  const std::string loop = dir + "/tessera_config_loop";
  std::filesystem::create_symlink(loop, loop);
  EXPECT_EQ(ReadYamlFile(loop).status().message(),
            loop + ": cannot be opened (Too many levels of symbolic links)");
  std::filesystem::remove(loop);
  EXPECT_EQ(ReadYamlFile(std::string(300, 'x')).status().message(),
            std::string(200, 'x') +
                "...: cannot be opened (File name too long); a config is given by the name of its "
                "file");
  EXPECT_EQ(
      ReadYamlFile("model: {}\ntrain: {}").status().message(),
      "expected the name of a config file, got text of several lines that begins 'model: {}'; "
      "write it to a file first");
  EXPECT_EQ(ReadYamlFile(dir).status().message(),
            dir + ": a directory; expected a config file such as configs/quickstart.yaml");
  const std::string path = dir + "/tessera_config_test.yaml";
  std::ofstream(path) << "a:\n  - {b: 1}\n";
  absl::StatusOr<ConfigNode> tree = ReadYamlFile(path);
  ASSERT_TRUE(tree.ok()) << tree.status();
  EXPECT_EQ(tree->Find("a")->items[0].Find("b")->where.ToString(), path + ":2:9");
  std::filesystem::remove(path);
}

TEST(Config, PlacesAreThoseOfTheText) {
  const ConfigNode root = Parsed("model:\n  layers:\n    - attention\n    - moe: {top_k: 2}\n");
  const ConfigNode& layers = *root.Find("model")->Find("layers");
  EXPECT_EQ(layers.items[0].where.ToString(), "f:3:7");
  EXPECT_EQ(layers.items[1].entries[0].key_where.ToString(), "f:4:7");
  EXPECT_EQ(layers.items[1].Find("moe")->Find("top_k")->where.ToString(), "f:4:20");
  EXPECT_EQ(root.Find("nothing"), nullptr);
}

TEST(Config, PrintsWhatParsesBackEqual) {
  EXPECT_EQ(PrintYaml(Parsed("{model: {d: 1, layers: [a, {b: {c: 1}}, {d: []}]}, t: {x: ~}}")),
            "model:\n  d: 1\n  layers:\n    - a\n    - b: {c: 1}\n    - d: []\nt: {x: null}\n");
  for (const char* text : {"",
                           "~",
                           "null",
                           "Null",
                           "NULL",
                           "none",
                           "true",
                           "no",
                           "8",
                           "-8",
                           "+8",
                           "-.5",
                           "-",
                           "--",
                           "---",
                           "...",
                           "- a",
                           "?",
                           "? a",
                           "<<",
                           "a: b",
                           "a:",
                           ":a",
                           "a #b",
                           "#",
                           " a",
                           "a ",
                           "\t",
                           "\n",
                           "a\nb\n",
                           "a\r\nb",
                           "\"",
                           "'",
                           "\\",
                           "\\n",
                           "{",
                           "}",
                           "[",
                           "]",
                           ",",
                           "a,b",
                           "&a",
                           "*a",
                           "!a",
                           "|",
                           ">",
                           "%a",
                           "@a",
                           "`a",
                           "\x01",
                           "\x7f",
                           "\xc3\xa9",
                           "\xef\xbb\xbfx",
                           "\xe2\x80\xa8",
                           "=",
                           "/a/b-c.txt",
                           "1e-3",
                           "0x8"}) {
    ConfigNode scalar{.kind = ConfigNode::Kind::kScalar, .text = text};
    ConfigNode list{.kind = ConfigNode::Kind::kList};
    list.items = {scalar, scalar};
    ConfigNode map{.kind = ConfigNode::Kind::kMap};
    map.entries = {{text, {}, scalar}, {"list", {}, list}};
    for (const ConfigNode& tree : {scalar, list, map}) {
      EXPECT_TRUE(Same(tree, Parsed(PrintYaml(tree)))) << PrintYaml(tree);
      EXPECT_TRUE(Same(tree, Parsed(PrintYamlFlow(tree)))) << PrintYamlFlow(tree);
    }
  }
}

TEST(Config, NearestSuggestsOnlyWhatIsNear) {
  EXPECT_EQ(Nearest("haeds", {"kv_heads", "heads", "window"}), "heads");
  EXPECT_EQ(Nearest("mamba", {"mlp", "mamba2", "gla"}), "mamba2");
  EXPECT_EQ(Nearest("transformer", {"mlp", "mamba2", "gla"}), "");
  EXPECT_EQ(Nearest("a", {"lr"}), "");
  EXPECT_EQ(Nearest("", {"lr"}), "");
}

TEST(Config, ManyErrorsAreCutShort) {
  ErrorList errors;
  for (int i = 0; i < 25; ++i) errors.Add(absl::InvalidArgumentError("x"));
  const std::string text(errors.ToStatus().message());
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 20);
  EXPECT_EQ(text.substr(text.size() - 10), "and 5 more");
}

TEST(Config, OverridesReplaceAndAdd) {
  ConfigNode root = Parsed("model:\n  layers:\n    - attention\n    - moe: {top_k: 2}\n");
  for (const char* o : {"model.layers[1].moe.top_k=1", "model.layers[0].attention.heads=2",
                        "train.lr=1e-3", "train.note=a=b", "train.data.text=\"x y\""})
    EXPECT_TRUE(Override(&root, o).ok()) << o;
  EXPECT_EQ(PrintYaml(root),
            "model:\n  layers:\n    - attention: {heads: 2}\n    - moe: {top_k: 1}\n"
            "train:\n  lr: 1e-3\n  note: a=b\n  data: {text: \"x y\"}\n");
  EXPECT_EQ(root.Find("train")->Find("lr")->Error("bad").message(),
            "command line: train.lr=1e-3: bad");
  EXPECT_TRUE(Override(&root, "model.layers[0]={mamba2: {d_state: 16}}").ok());
  EXPECT_TRUE(Override(&root, "model.layers[0].mamba2.window=null").ok());
  EXPECT_EQ(PrintYamlFlow(root.Find("model")->Find("layers")->items[0]),
            "{mamba2: {d_state: 16, window: null}}");
}

// What YAML gives a meaning to is a character of a path like any other.
TEST(Config, OverridesTakeTextAsItStands) {
  const auto taken = [](const std::string& value) {
    ConfigNode root = Parsed("train: {data: {text: a}}");
    const absl::Status status = Override(&root, "train.data.text=" + value);
    if (!status.ok()) return "error: " + std::string(status.message());
    std::string text;
    ErrorList errors;
    ReadText(*root.Find("train")->Find("data")->Find("text"), "text", &text, &errors);
    return errors.empty() ? text : std::string(errors.ToStatus().message());
  };
  for (const char* text : {"corpus #2.txt",
                           "#2.txt",
                           "a: b",
                           "a:",
                           ": a",
                           "*.txt",
                           "*a",
                           "%a",
                           "@a",
                           "&a b",
                           "!a",
                           "!!str a",
                           "|",
                           "| a",
                           ">",
                           "> a",
                           "- a",
                           "-",
                           "? a",
                           "a, b",
                           "a]",
                           "a}",
                           "a\"b",
                           "it's",
                           "`a`",
                           "a\\b",
                           "--- a",
                           "...",
                           " a",
                           "a ",
                           " ",
                           "\n\n",
                           "\ta",
                           "a\nb",
                           "none",
                           "true",
                           "no",
                           "1e-3",
                           "0x8",
                           "2024-01-01",
                           "~/a.txt",
                           "<<",
                           "=",
                           "a=b",
                           "\xc3\xa9"})
    EXPECT_EQ(taken(text), text);
  // Quotes and brackets are YAML, whole or not at all.
  EXPECT_EQ(taken("\"a #b\""), "a #b");
  EXPECT_EQ(taken("'a: b'"), "a: b");
  for (const char* text : {"\"a\" #b", "'a' # b", "[a] # b", "{a: b} #", "[a, #b\n]"})
    EXPECT_NE(taken(text).find("'#' begins a comment here"), std::string::npos) << taken(text);
  for (const char* text :
       {"[draft] a.txt", "\"a\" b", "{a} b", "\"a", "[a", "[&x a]", "[*x]", "[!!int 3]"})
    EXPECT_EQ(taken(text).find("error: command line: "), 0u) << text << ": " << taken(text);
  EXPECT_EQ(taken("\xff"),
            "error: command line: train.data.text=\xff: value:1:1: byte 0xff: expected UTF-8 text");
}

TEST(Config, OverridesTakeKeysAway) {
  ConfigNode root = Parsed("model: {layers: [a, b, {c: {x: 1, y: 2}}]}\ntrain: {data: {text: a}}");
  for (const char* o :
       {"~model.layers[2].c.x", "~model.layers[0]", "~train.data.text", "train.data.jsonl=b"})
    EXPECT_TRUE(Override(&root, o).ok()) << o;
  EXPECT_EQ(PrintYamlFlow(root), "{model: {layers: [b, {c: {y: 2}}]}, train: {data: {jsonl: b}}}");
}

TEST(Config, BadOverridesSayWhatIsThereAndChangeNothing) {
  ConfigNode root = Parsed("model:\n  layers: [attention, gla]\n  none: []\ntrain: {lr: 1}\n");
  const std::string before = PrintYaml(root);
  const auto bad = [&](const std::string& s) { return std::string(Override(&root, s).message()); };
  EXPECT_EQ(bad("train.lr"), "command line: train.lr: expected key=value, such as train.lr=1e-3");
  EXPECT_EQ(bad("=1"), "command line: =1: expected key=value, such as train.lr=1e-3");
  EXPECT_EQ(bad("model.layers[7].moe=1"),
            "command line: model.layers[7].moe=1: there is no [7]: model.layers is a list, [0] to "
            "[1]");
  EXPECT_EQ(bad("model.layers[x]=1"),
            "command line: model.layers[x]=1: there is no [x]: model.layers is a list, [0] to [1]");
  EXPECT_EQ(bad("model.layers[-1]=1"),
            "command line: model.layers[-1]=1: there is no [-1]: model.layers is a list, [0] to "
            "[1]");
  EXPECT_EQ(bad("model.none[0]=1"),
            "command line: model.none[0]=1: there is no [0]: model.none is an empty list");
  EXPECT_EQ(bad("model[0]=1"),
            "command line: model[0]=1: there is no [0]: model is a map (keys: layers, none)");
  EXPECT_EQ(bad("model.layer[0].x=1"),
            "command line: model.layer[0].x=1: there is no list model.layer: model is a map (keys: "
            "layers, none)");
  EXPECT_EQ(bad("model.layers.heads=1"),
            "command line: model.layers.heads=1: there is no key 'heads': model.layers is a list, "
            "[0] to [1]");
  EXPECT_EQ(
      bad("model.layers[1].mamba2.x=1"),
      "command line: model.layers[1].mamba2.x=1: there is no key 'mamba2': model.layers[1] is "
      "'gla'");
  EXPECT_EQ(bad("train.lr.x=1"),
            "command line: train.lr.x=1: there is no key 'x': train.lr is '1'");
  EXPECT_EQ(bad("train.lr="),
            "command line: train.lr=: no value after '='; '~train.lr' takes the key away");
  EXPECT_EQ(
      bad("~train.rl"),
      "command line: ~train.rl: there is no key 'rl' to take away: train is a map (keys: lr)");
  EXPECT_EQ(bad("~model.layers[2]"),
            "command line: ~model.layers[2]: there is no [2]: model.layers is a list, [0] to [1]");
  EXPECT_EQ(bad("~"), "command line: ~: expected key=value, such as train.lr=1e-3");
  const std::string path = "; write a path such as model.layers[1].moe.top_k";
  EXPECT_EQ(bad("a..b=1"), "command line: a..b=1: an empty key" + path);
  EXPECT_EQ(bad("a.=1"), "command line: a.=1: an empty key" + path);
  EXPECT_EQ(bad("a[=1"), "command line: a[=1: a '[' without its ']'" + path);
  EXPECT_EQ(bad("a[]=1"), "command line: a[]=1: an empty index" + path);
  EXPECT_EQ(bad("a[0]b=1"), "command line: a[0]b=1: after ']' comes '.', '[' or '='" + path);
  EXPECT_EQ(
      bad("train.x=[1"),
      "command line: train.x=[1: value:1:1: end of sequence flow not found (a '[' without its "
      "']', or a missing comma); a text that begins with [ is written in quotes: "
      "'train.x=\"...\"'");
  EXPECT_EQ(bad("train.x={a: 1, a: 2}"),
            "command line: train.x={a: 1, a: 2}: value:1:8: key 'a' is given twice; first at "
            "value:1:2");
  std::string deep = "a";
  for (int i = 0; i < 30; ++i) deep += ".a";
  EXPECT_EQ(bad(deep + "=[[[1]]]"), "command line: " + deep + "=[[[1]]]: nested deeper than 32");
  EXPECT_EQ(PrintYaml(root), before);
}

// Whatever the bytes, the answer is a tree that prints and parses back equal, or an error with a
// place.
TEST(Config, DamagedTextNeverCrashes) {
  const std::string good =
      "model:\n  d_model: 64\n  layers:\n    - repeat: 2\n      layers: [{gla: {heads: 2}}, mlp]\n"
      "train: {lr: 1e-3, data: {text: \"a\\n\"}}\n";
  const std::string bytes = " \n:-{}[],&*!'\"#a0~\\\t%@|>?\x01\xff\xc3\xa9<=.";
  const Rng rng(1, "damage");
  uint64_t draw = 0;
  const auto below = [&](size_t n) { return static_cast<size_t>(rng.Below(draw++, n)); };
  int errors = 0;
  for (int i = 0; i < 4000; ++i) {
    std::string text = good;
    for (size_t k = below(5) + 1; k > 0; --k) {
      const size_t at = below(text.size()), how = below(4);
      if (how == 0) text.erase(at, 1 + below(4));
      if (how == 1) text.insert(at, 1, bytes[below(bytes.size())]);
      if (how == 2) text[at] = bytes[below(bytes.size())];
      if (how == 3) text.insert(at, text.substr(at, below(12)));
    }
    const absl::StatusOr<ConfigNode> tree = ParseYaml(text, "f.yaml");
    if (tree.ok()) {
      EXPECT_TRUE(Same(*tree, Parsed(PrintYaml(*tree)))) << text << "\n--\n" << PrintYaml(*tree);
      continue;
    }
    ++errors;
    int line = 0, column = 0;
    EXPECT_EQ(std::sscanf(tree.status().message().data(), "f.yaml:%d:%d: ", &line, &column), 2)
        << tree.status();
    EXPECT_TRUE(line >= 1 && column >= 1) << tree.status();
  }
  EXPECT_GT(errors, 500);
  EXPECT_LT(errors, 3900);
}

TEST(Config, DamagedOverridesNeverCrash) {
  const std::string good = "model.layers[1].moe={top_k: 1, x: [a, 2]}";
  const std::string bytes = " .[]=:{}&*!'\"#a0~-9,";
  const Rng rng(2, "damage");
  uint64_t draw = 0;
  const auto below = [&](size_t n) { return static_cast<size_t>(rng.Below(draw++, n)); };
  for (int i = 0; i < 2000; ++i) {
    std::string text = good;
    for (size_t k = below(4) + 1; k > 0; --k) text[below(text.size())] = bytes[below(bytes.size())];
    ConfigNode root = Parsed("model: {layers: [attention, moe]}");
    const absl::Status status = Override(&root, text);
    if (status.ok()) {
      EXPECT_TRUE(Same(root, Parsed(PrintYaml(root)))) << text << "\n--\n" << PrintYaml(root);
    } else {
      EXPECT_EQ(status.message().substr(0, 14 + text.size()), "command line: " + text);
    }
  }
}

}  // namespace
}  // namespace tessera
