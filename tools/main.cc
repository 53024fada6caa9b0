#include <algorithm>
#include <cstdio>

#include "config/config.h"
#include "kernels/cpu/isa.h"
#include "tools/command.h"

namespace tessera {
namespace {

int RunCommand(int argc, char** argv) {
  if (const char* error = CpuError(); error != nullptr) {
    std::fprintf(stderr, "tessera: %s\n", error);
    return kFailed;
  }
  CLI::App app("Tessera: compose, cost, train and run language-model architectures.", "tessera");
  app.require_subcommand(1);
  app.set_version_flag(
      "--version", [] { return VersionText(); }, "what was built, and for what");
  app.footer(
      "Examples:\n  tessera describe configs/quickstart.yaml\n"
      "  tessera train configs/quickstart.yaml train.lr=1e-3 --run runs/mine\n"
      "  tessera generate --run runs/mine --prompt 'The ' --tokens 200\n"
      "  tessera blocks gla\n"
      "Exit codes: 0 done; 1 failed; 2 a mistake in the command line or the config; 70 a bug in\n"
      "Tessera; 130 interrupted, after saving; 141 nobody read standard output to its end.");
  int code = kDone;
  AddDescribe(&app, &code);
  AddTrain(&app, &code);
  AddEval(&app, &code);
  AddGenerate(&app, &code);
  AddExport(&app, &code);
  AddBench(&app, &code);
  AddBlocks(&app, &code);
  AddConfigs(&app, &code);
  AddPapers(&app, &code);
  AddTokenizer(&app, &code);
  AddCompletion(&app, &code);
  std::vector<std::string> names;
  for (const CLI::App* c : app.get_subcommands({})) names.push_back(c->get_name());
  if (argc > 1 && argv[1][0] != '-' &&
      std::find(names.begin(), names.end(), argv[1]) == names.end()) {
    std::fprintf(stderr, "tessera: %s\n",
                 UnknownName("command", argv[1], "tessera", names).c_str());
    return kMistake;
  }
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? kDone : kMistake;
  }
  return code;
}

}  // namespace
}  // namespace tessera

int main(int argc, char** argv) {
  tessera::PrepareStreams();
  tessera::CatchAll();
  return tessera::CloseOutput(tessera::RunGuarded([&] { return tessera::RunCommand(argc, argv); }));
}
