#include <cstdio>
#include <nlohmann/json.hpp>

#include "arch/registry.h"
#include "tools/command.h"

namespace tessera {
namespace {

int Blocks(const std::string& name, bool json) {
  if (!name.empty() && FindBlock(name) == nullptr) {
    std::vector<std::string> known;
    for (const BlockType* t : AllBlocks()) known.push_back(t->name);
    std::fprintf(stderr, "tessera: %s\n", UnknownName("block", name, "this build", known).c_str());
    return 2;
  }
  nlohmann::json out = nlohmann::json::array();
  for (const BlockType* t : AllBlocks()) {
    if (!name.empty() && name != t->name) continue;
    auto config = t->make_config();
    FieldList fields;
    config->Fields(fields);
    nlohmann::json keys = nlohmann::json::array();
    if (!json) std::printf("%-12s %s (%s)\n", t->name, t->title, t->paper);
    for (const ManualRow& row : ManualRows(fields)) {
      keys.push_back(
          {{"key", row.key}, {"type", row.type}, {"default", row.default_text}, {"doc", row.doc}});
      if (!row.needs.empty()) keys.back()["needs"] = row.needs;
      if (!json && !name.empty())
        std::printf("  %-28s %s (default %s)\n      %s%s\n", row.key.c_str(), row.type.c_str(),
                    row.default_text.c_str(), row.doc.c_str(),
                    row.needs.empty() ? "" : ("; needs " + row.needs).c_str());
    }
    out.push_back({{"name", t->name}, {"title", t->title}, {"paper", t->paper}, {"keys", keys}});
  }
  if (json) std::printf("%s\n", out.dump(2).c_str());
  return 0;
}

}  // namespace

void AddBlocks(CLI::App* app, int* code) {
  struct Options {
    std::string name;
    bool json = false;
  };
  auto o = std::make_shared<Options>();
  CLI::App* c = app->add_subcommand("blocks", "list the blocks, or one block's keys");
  c->add_option("name", o->name, "a block");
  c->add_flag("--json", o->json, "for scripts");
  c->footer("Examples:\n  tessera blocks\n  tessera blocks gla\n  tessera blocks --json");
  c->callback([=] { *code = Blocks(o->name, o->json); });
}

}  // namespace tessera
