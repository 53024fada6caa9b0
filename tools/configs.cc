#include <cstdio>
#include <nlohmann/json.hpp>

#include "config/fields.h"
#include "config/map_reader.h"
#include "tools/command.h"
#include "train/ready_configs.h"

namespace tessera {
namespace {

int Configs(const std::string& name, bool json) {
  if (!name.empty()) {
    const ReadyConfig* config = FindReadyConfig(name);
    if (config == nullptr) {
      std::vector<std::string> known;
      for (const ReadyConfig& c : ReadyConfigs()) known.push_back(c.name);
      return Fail(absl::InvalidArgumentError(UnknownName("config", name, "this build", known)), 2);
    }
    std::fputs(config->text, stdout);
    return 0;
  }
  nlohmann::json out = nlohmann::json::array();
  for (const ReadyConfig& c : ReadyConfigs()) {
    const std::string summary(c.Summary());
    out.push_back({{"name", c.name}, {"summary", summary}, {"text", c.text}});
    if (!json) std::printf("%-14s %s\n", c.name, summary.c_str());
  }
  if (json) std::printf("%s\n", out.dump(2).c_str());
  return 0;
}

}  // namespace

void AddConfigs(CLI::App* app, int* code) {
  struct Options {
    std::string name;
    bool json = false;
  };
  auto o = std::make_shared<Options>();
  CLI::App* c = app->add_subcommand("configs", "list the ready configs, or print one");
  c->add_option("name", o->name, "a config");
  c->add_flag("--json", o->json, "for scripts");
  c->footer(
      "A ready config can be named wherever a config file is expected.\n"
      "Examples:\n  tessera configs\n  tessera configs quickstart > mine.yaml\n"
      "  tessera describe quickstart");
  c->callback([=] { *code = Configs(o->name, o->json); });
}

}  // namespace tessera
