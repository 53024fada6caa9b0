#include "train/export.h"

#include <cstdio>

#include "tools/command.h"

namespace tessera {

void AddExport(CLI::App* app, int* code) {
  struct Options {
    std::string run, out;
    bool merge = false;
  };
  auto o = std::make_shared<Options>();
  CLI::App* c = app->add_subcommand("export", "write a run's weights in another form");
  c->add_option("run", o->run, "run directory")->required();
  c->add_flag("--merge", o->merge,
              "add the adapters to the weights, and take along what the run has of its base")
      ->required();
  c->add_option("-o,--out", o->out, "a new folder for the result: a run of its own")->required();
  c->footer(
      "The result holds all weights, as safetensors, and a config without model.adapt and\n"
      "model.from: it generates, is evaluated and is the base of other runs (model.from) as any\n"
      "run. It has no states of an optimiser, so it is not resumed.\n"
      "Example:\n  tessera export runs/adapted --merge -o runs/merged\n"
      "  tessera generate --run runs/merged --prompt 'The '");
  c->callback([=] {
    const absl::Status status = ExportMerged(o->run, o->out);
    *code = status.ok() ? kDone : Fail(status, CodeOf(status));
    if (status.ok()) std::printf("%s\n", o->out.c_str());
  });
}

}  // namespace tessera
