#include <algorithm>
#include <cstdio>

#include "arch/config.h"
#include "kernels/cpu/isa.h"
#include "tools/command.h"

int main(int argc, char** argv) {
  if (const char* error = tessera::CpuError(); error != nullptr) {
    std::fprintf(stderr, "tessera: %s\n", error);
    return 1;
  }
  CLI::App app("Tessera: compose, cost, train and run language-model architectures.", "tessera");
  app.require_subcommand(1);
  app.footer(
      "Examples:\n  tessera describe configs/quickstart.yaml\n"
      "  tessera train configs/quickstart.yaml train.lr=1e-3 --run runs/mine\n"
      "  tessera generate --run runs/mine --prompt 'The ' --tokens 200\n"
      "  tessera blocks gla");
  int code = 0;
  tessera::AddDescribe(&app, &code);
  tessera::AddTrain(&app, &code);
  tessera::AddEval(&app, &code);
  tessera::AddGenerate(&app, &code);
  tessera::AddBench(&app, &code);
  tessera::AddBlocks(&app, &code);
  tessera::AddConfigs(&app, &code);
  tessera::AddTokenizer(&app, &code);
  tessera::AddCompletion(&app, &code);
  std::vector<std::string> names;
  for (const CLI::App* c : app.get_subcommands({})) names.push_back(c->get_name());
  if (argc > 1 && argv[1][0] != '-' &&
      std::find(names.begin(), names.end(), argv[1]) == names.end()) {
    std::fprintf(stderr, "tessera: %s\n",
                 tessera::UnknownName("command", argv[1], "tessera", names).c_str());
    return 2;
  }
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? 0 : 2;
  } catch (const tessera::CudaError& e) {
    std::fprintf(stderr, "tessera: the GPU failed: %s\n", e.what());
    return 1;
  }
  return code;
}
