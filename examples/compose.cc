// Composes a hybrid of three block families in C++, trains it on a text file (its own source, if
// none is given), and lets it go on writing.
#include <cstdio>

#include "generate/generator.h"
#include "train/trainer.h"

int main(int argc, char** argv) {
  const auto config = tessera::ParseRunConfig(R"(
model: {d_model: 64, layers: [{mamba2: {head_dim: 32}}, attention, {moe: {experts: 4, d_ff: 128}}]}
train: {batch: 4, seq: 128, steps: 40, warmup: 5})",
                                              "compose", {});
  if (!config.ok()) return std::fprintf(stderr, "%s\n", config.status().ToString().c_str()), 2;
  const std::shared_ptr tokenizer = tessera::MakeByteTokenizer();
  const tessera::DataConfig file{.path = argc > 1 ? argv[1] : __FILE__, .val_fraction = 0.1};
  const auto data = tessera::Dataset::Open(file, tokenizer, config->train.seq);
  if (!data.ok()) return std::fprintf(stderr, "%s\n", data.status().ToString().c_str()), 1;
  const auto trainer = tessera::Trainer::Create(*config, tokenizer->vocab_size()).value();
  while (trainer->step() < config->train.steps) {
    const tessera::StepReport step = trainer->Step(*data).value();
    if (step.step % 10 == 0) std::printf("step %ld: loss %.3f\n", step.step, step.loss);
  }
  const auto prompt = tokenizer->Encode("const auto ").value();
  const auto written = tessera::Generate(
      trainer->model(), tessera::Device::kCpu, prompt, 60, {}, tessera::DType::kF32,
      [&](int32_t token) {
        return std::fputs(std::string(tokenizer->TokenBytes(token)).c_str(), stdout) >= 0;
      });
  std::puts("");
  return written.ok() ? 0 : 1;
}
