#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "tests/program/shell.h"
#include "train/ready_configs.h"

// The program as a person or a script uses it: exit codes, what stands on standard output, and the
// words of every mistake.

namespace tessera {
namespace {

namespace fs = std::filesystem;
using testing::Ended;
using testing::Shell;

constexpr const char* kProgram = TESSERA_BINARY_DIR "/tessera";

Ended Tessera(const std::string& arguments) {
  return Shell(std::string(kProgram) + " " + arguments + " 2>/dev/null");
}

class Program : public ::testing::Test {
 protected:
  Program() : folder_(::testing::TempDir() + "program_test_" + std::to_string(getpid())) {
    fs::create_directories(folder_);
    std::ofstream text(folder_ + "/text.txt");
    for (int i = 0; i < 2000; ++i) text << "line " << i * i % 977 << " of the text\n";
    Write("c.yaml",
          "model: {d_model: 32, layers: [{gla: {heads: 2}}, {moe: {experts: 2, top_k: 1, d_ff: "
          "16}}]}\ntrain: {data: {text: " +
              folder_ +
              "/text.txt}, steps: 6, batch: 2, seq: 32, warmup: 2, eval_every: 3, eval_tokens: "
              "64}\n");
  }
  ~Program() override { fs::remove_all(folder_); }

  void Write(const std::string& name, const std::string& text) {
    std::ofstream(folder_ + "/" + name) << text;
  }
  std::string At(const std::string& name) { return folder_ + "/" + name; }
  // What a failing command says on standard error; it must leave its exit code `status`, nothing on
  // standard output, and no run directory.
  std::string Error(const std::string& arguments, int status) {
    const Ended out = Tessera(arguments);
    EXPECT_EQ(out.status, status) << arguments;
    EXPECT_EQ(out.output, "") << arguments;
    std::string said = Shell(std::string(kProgram) + " " + arguments + " 2>&1 >/dev/null").output;
    for (size_t at; (at = said.find(folder_)) != std::string::npos;)
      said.replace(at, folder_.size(), "F");
    if (said.rfind("device ", 0) == 0) said.erase(0, said.find('\n') + 1);
    EXPECT_FALSE(fs::exists(At("run"))) << arguments;
    return said;
  }
  std::string Train(const std::string& more, int status = 2) {
    return Error("train " + At("c.yaml") + " --run " + At("run") + " " + more, status);
  }

  const std::string folder_;
};

TEST_F(Program, MistakesOfConfigAndCommandLineAreCodeTwo) {
  EXPECT_EQ(Train("train.lr=fast"),
            "tessera: command line: train.lr=fast: lr: expected a number > 0, got 'fast'\n");
  EXPECT_EQ(Train("train.stesp=1")
                .rfind("tessera: command line: train.stesp=1: unknown key 'stesp' in train; did "
                       "you mean 'steps'? (known: ",
                       0),
            0u);
  EXPECT_EQ(Train("lr"), "tessera: command line: lr: expected key=value, such as train.lr=1e-3\n");
  EXPECT_EQ(Train("lr=1e-3"),
            "tessera: command line: lr=1e-3: unknown key 'lr' in the config; did you mean "
            "'train.lr'? (known: model, train)\n");
  EXPECT_EQ(Train("data.text=x"),
            "tessera: command line: data.text=x: unknown key 'data' in the config; did you mean "
            "'train.data'? (known: model, train)\n");
  EXPECT_NE(Train("train.text=x").find("did you mean 'data.text'?"), std::string::npos);
  EXPECT_EQ(
      Error("train train.lr=1 " + At("c.yaml"), 2),
      "tessera: 'train.lr=1' sets a key, and the config comes before it: CONFIG train.lr=1\n");
  EXPECT_EQ(Error("describe \"$(cat " + At("c.yaml") + ")\"", 2).substr(0, 72),
            "tessera: expected the name of a config file, got text of several lines t");
  EXPECT_EQ(
      Train("train.final_lr_ratio=0.5 train.schedule=constant"),
      "tessera: command line: train.final_lr_ratio=0.5: final_lr_ratio has no effect here: it "
      "needs `schedule: cosine` or wsd; take it away\n");
  EXPECT_EQ(Train("'model.layers[0].gla.heads=5'"),
            "tessera: F/c.yaml:1:32: gla: heads = 5 does not divide the width 16 (expand_k = 0.5 "
            "times d_model = 32)\n");
  EXPECT_EQ(Train("'model.layers[1].moe.top_k=3'"),
            "tessera: F/c.yaml:1:51: moe: top_k = 3 exceeds experts = 2: a token uses an expert "
            "once; lower top_k or add experts\n");
  EXPECT_EQ(Error("train " + At("none.yaml"), 2),
            "tessera: F/none.yaml: cannot be opened (No such file or directory); `tessera configs` "
            "lists those that come along\n");
  EXPECT_NE(Error("train", 2).find("config is required"), std::string::npos);
  EXPECT_NE(Error("trian", 2), "");
  EXPECT_NE(Train("--device tpu").find("{auto,cpu,cuda}"), std::string::npos);
  EXPECT_EQ(
      Error("genrate", 2),
      "tessera: unknown command 'genrate' in tessera; did you mean 'generate'? (known: describe, "
      "train, eval, generate, export, bench, blocks, configs, papers, tokenizer, completion)\n");
  EXPECT_EQ(Error("generate --run r --prompt a --tokens 0", 2),
            "--tokens: expected a whole number >= 1, got '0'\nRun with --help for more "
            "information.\n");
}

// Nothing falls back in silence: a GPU that is asked for and cannot be had is an error.
TEST_F(Program, AGpuThatCannotBeHadIsAnError) {
  const auto with = [&](const std::string& library) {
    return Shell("TESSERA_CUDA_LIBRARY=" + library + " " + kProgram + " train " + At("c.yaml") +
                 " --run " + At("run") + " --device cuda 2>&1");
  };
  const Ended none = with("/none.so");
  EXPECT_EQ(none.status, 1);
  EXPECT_EQ(
      none.output.rfind("tessera: this build has no CUDA kernels (no /none.so); they are built "
                        "where CMake finds an nvcc",
                        0),
      0u)
      << none.output;
  Write("text.so", "not a library");
  EXPECT_NE(with(At("text.so")).output.find("the CUDA kernels do not load: "), std::string::npos);
  EXPECT_FALSE(fs::exists(At("run")));
}

// The whole program on the CUDA kernels, by the GPU that the tests have on the host.
TEST_F(Program, TrainsAndGeneratesOnAGpu) {
  const std::string gpu = "TESSERA_CUDA_LIBRARY=" TESSERA_BINARY_DIR "/libtessera_host_gpu.so ";
  const std::string program = gpu + kProgram + " ";
  Write("text.txt", std::string(4000, 'a') + std::string(4000, 'b'));
  std::vector<std::string> losses;
  for (const char* device : {"cpu", "cuda"}) {
    const std::string run = At(std::string("run_") + device);
    const Ended trained = Shell(
        program + "train " + At("c.yaml") + " train.data.text=" + At("text.txt") +
        " train.steps=4 train.batch=2 train.seq=32 --run " + run + " --device " + device + " 2>&1");
    EXPECT_EQ(trained.status, 0) << trained.output;
    EXPECT_EQ(trained.output.rfind(std::string("device ") + device + " (", 0), 0u)
        << trained.output;
    losses.push_back(Shell(gpu + kProgram + " eval --json --run " + run + " --data " +
                           At("text.txt") + " --device " + device + " 2>&1")
                         .output);
    const Ended text = Shell(program + "generate --run " + run + " --prompt ab --tokens 5 --json" +
                             " --device " + device);
    EXPECT_EQ(text.status, 0);
    EXPECT_EQ(nlohmann::json::parse(text.output)["tokens"].size(), 5u);
  }
  const auto loss = [&](size_t i) {
    return nlohmann::json::parse(losses[i])["loss"].get<double>();
  };
  EXPECT_NEAR(loss(0), loss(1), 1e-4);
  EXPECT_NE(
      Shell(program + "bench gla --seq 16 --tokens 32 --d-model 32 --rounds 1 --device cuda 2>&1")
          .output.find("device cuda (the host)"),
      std::string::npos);
}

TEST_F(Program, BadDataIsNamed) {
  EXPECT_EQ(Train("train.data.text=" + At("none.txt"), 1),
            "tessera: cannot open F/none.txt: No such file or directory (ENOENT)\n");
  Write("empty.txt", "");
  EXPECT_EQ(Train("train.data.text=" + At("empty.txt")),
            "tessera: F/empty.txt: the file is empty; there is nothing to train on\n");
  Write("short.txt", "too short");
  EXPECT_EQ(Train("train.data.text=" + At("short.txt")),
            "tessera: F/short.txt: the training part has 9 tokens of the 9 in the file, but one "
            "sequence of 32 needs 33; give more text, shorten train.seq or change val_fraction "
            "(0.05)\n");
  Write("ids.bin", std::string("\x01\x00\x05\x01", 4));
  EXPECT_EQ(
      Train("'train.data={tokens: " + At("ids.bin") + ", encoding: u16}'"),
      "tessera: F/ids.bin: token 1 (byte 2) has id 261, but the tokenizer has 256 tokens; use "
      "the tokenizer that wrote the file\n");
  EXPECT_EQ(Train("'train.data={}'"),
            "tessera: no data: set train.data.text, train.data.jsonl or train.data.tokens to a "
            "file\n");
}

TEST_F(Program, RunDirectoriesAreNotTouchedByMistake) {
  EXPECT_EQ(Error("train " + At("c.yaml") + " --run " + At("text.txt") + "/run", 1),
            "tessera: cannot create the folder F/text.txt: Not a directory (ENOTDIR)\n");
  EXPECT_EQ(
      Error("train " + At("c.yaml") + " --run /proc/tessera", 1),
      "tessera: cannot create the folder /proc/tessera: No such file or directory (ENOENT)\n");
  EXPECT_EQ(Train("--resume", 1),
            "tessera: F/run does not exist; there is nothing to resume (--resume-or-start starts a "
            "run where there is none)\n");
  fs::create_directories(At("there"));
  Write("there/notes.txt", "mine");
  EXPECT_EQ(Error("train " + At("c.yaml") + " --run " + At("there"), 1),
            "tessera: F/there exists and holds other files; choose another --run directory\n");
  Write("there/config.yaml", "model:");
  EXPECT_EQ(Error("train " + At("c.yaml") + " --run " + At("there"), 1),
            "tessera: F/there exists; continue it with --resume, or choose another --run "
            "directory\n");
}

TEST_F(Program, TooLittleMemoryIsToldBeforeTheRun) {
  const std::string said = Train("train.batch=100000 train.seq=1000", 1);
  EXPECT_EQ(said.rfind("tessera: this run (", 0), 0u) << said;
  EXPECT_NE(said.find("; lower train.batch or train.seq, or set `recompute: true` on layers\n"),
            std::string::npos)
      << said;
}

TEST_F(Program, TrainsEvaluatesAndGenerates) {
  const std::string run = At("out");
  const Ended trained = Tessera("train " + At("c.yaml") + " --run " + run);
  EXPECT_EQ(trained.status, 0);
  EXPECT_EQ(trained.output, run + "\n");
  for (const char* file : {"config.yaml", "metrics.jsonl", "report.html"})
    EXPECT_TRUE(fs::exists(run + "/" + file)) << file;

  std::ifstream metrics(run + "/metrics.jsonl");
  int64_t steps = 0, validations = 0;
  for (std::string line; std::getline(metrics, line);) {
    const auto row = nlohmann::json::parse(line);
    if (row.contains("val_bits_per_byte")) {
      ++validations;
      continue;
    }
    EXPECT_EQ(row["step"], ++steps);
    for (const char* key : {"tokens", "loss", "grad_norm", "lr", "tokens_per_second", "mfu",
                            "seconds", "layers[1].moe.load"})
      EXPECT_TRUE(row.contains(key)) << key;
    EXPECT_GT(row["mfu"], 0);
    EXPECT_LT(row["mfu"], 1);
  }
  EXPECT_EQ(steps, 6);
  EXPECT_EQ(validations, 2);

  const Ended eval = Tessera("eval --run " + run + " --data " + At("text.txt") + " --json");
  EXPECT_EQ(eval.status, 0);
  const auto e = nlohmann::json::parse(eval.output);
  EXPECT_EQ(e["tokens"], static_cast<int64_t>(fs::file_size(At("text.txt"))) - 1);
  EXPECT_NEAR(e["bits_per_byte"].get<double>() * std::log(2.0), e["loss"].get<double>(), 1e-9);
  // The same tokens in windows of another size differ, but not by much after six steps.
  const Ended wide =
      Tessera("eval --run " + run + " --data " + At("text.txt") + " --seq 64 --json");
  EXPECT_NEAR(nlohmann::json::parse(wide.output)["loss"], e["loss"], 0.1);

  const std::string generate = "generate --run " + run + " --tokens 12 --json --prompt ";
  const Ended made = Tessera(generate + "'line '");
  EXPECT_EQ(made.status, 0);
  const auto g = nlohmann::json::parse(made.output);
  EXPECT_EQ(g["tokens"].size(), 12u);
  EXPECT_EQ(nlohmann::json::parse(Tessera(generate + "'line '").output)["tokens"], g["tokens"]);
  EXPECT_NE(nlohmann::json::parse(Tessera(generate + "'line ' --seed 2").output)["tokens"],
            g["tokens"]);

  // Every byte of a prompt counts, wherever it comes from.
  Write("prompt.txt", "line ");
  const std::string from = "generate --run " + run + " --tokens 12 --json --prompt-file ";
  EXPECT_EQ(nlohmann::json::parse(Tessera(from + At("prompt.txt")).output)["tokens"], g["tokens"]);
  const Ended piped =
      Shell("printf 'line ' | " + std::string(kProgram) + " " + from + "- 2>/dev/null");
  EXPECT_EQ(nlohmann::json::parse(piped.output)["tokens"], g["tokens"]);
  EXPECT_EQ(nlohmann::json::parse(piped.output)["prompt"], "line ");
  EXPECT_EQ(Error(from + At("none.txt"), 1),
            "tessera: cannot open F/none.txt: No such file or directory (ENOENT)\n");
  const std::string either =
      "tessera: give the prompt by either --prompt TEXT or --prompt-file FILE (- is standard "
      "input)\n";
  EXPECT_EQ(Error("generate --run " + run, 2), either);
  EXPECT_EQ(Error(from + "- --prompt a", 2), either);

  // It ends before a stop text: here the first byte that was generated.
  EXPECT_EQ(g["finish"], "length");
  const int first_id = g["tokens"][0];
  char octal[8];
  std::snprintf(octal, sizeof octal, "\\%03o", static_cast<unsigned>(first_id));
  const auto stopped = nlohmann::json::parse(
      Tessera(generate + "'line ' --stop \"$(printf '" + octal + "')\"").output);
  EXPECT_EQ(stopped["finish"], "stop");
  EXPECT_EQ(stopped["text"], "");
  EXPECT_EQ(stopped["tokens"].size(), 1u);
  EXPECT_EQ(Error(generate + "a --stop ''", 2),
            "tessera: --stop: an empty text would stop everything\n");

  // Numbers are what they look like, or a mistake.
  const std::string most = "18446744073709551615";
  EXPECT_EQ(Tessera(generate + "a --seed " + most).status, 0);
  for (const char* bad :
       {"-1", "18446744073709551616", "99999999999999999999", "010", "0x10", "+1", "1.5", "''"})
    EXPECT_NE(Error(generate + "a --seed " + bad, 2)
                  .find("--seed: expected a whole number from 0 to " + most + ", got '"),
              std::string::npos)
        << bad;

  EXPECT_EQ(Error(generate + "''", 2),
            "tessera: the prompt is empty; at least one token is needed\n");
  EXPECT_EQ(Error(generate + "$(printf 'abc\\377')", 2),
            "tessera: the prompt is not valid UTF-8: byte 0xff at offset 3 begins no character\n");
  EXPECT_EQ(Error(generate + "a --top-p 2", 2),
            "tessera: top-p 2: expected a probability in (0, 1]\n");
  EXPECT_EQ(Error("generate --run " + At("none") + " --prompt a", 1),
            "tessera: F/none does not exist\n");
  EXPECT_EQ(
      Error("eval --run " + run + " --data " + At("c.yaml") + " --seq 1000", 2),
      "tessera: F/c.yaml: the file has " + std::to_string(fs::file_size(At("c.yaml"))) +
          " tokens, but one sequence of 1000 needs 1001; give more text or a shorter sequence\n");
}

TEST_F(Program, ABpeIsLearntAndTrainedOn) {
  const std::string bpe = At("bpe.json"), ids = At("ids.bin");
  EXPECT_EQ(Tessera("tokenizer train " + At("text.txt") + " --vocab 300 --out " + bpe).status, 0);
  EXPECT_EQ(Tessera("tokenizer encode " + At("text.txt") + " --tokenizer " + bpe + " --out " + ids)
                .status,
            0);
  const std::string train = "train " + At("c.yaml") + " model.vocab=" + bpe + " --run ";
  EXPECT_EQ(Tessera(train + At("a")).status, 0);
  EXPECT_EQ(Tessera(train + At("b") + " 'train.data={tokens: " + ids + "}'").status, 0);
  // Text tokenised on the way in and tokens from the file are the same run.
  const auto last = [&](const std::string& run) {
    return Shell("grep '\"loss\"' " + At(run) + "/metrics.jsonl | grep -o '\"loss\":[0-9.]*'")
        .output;
  };
  EXPECT_NE(last("a"), "");
  EXPECT_EQ(last("a"), last("b"));
  EXPECT_EQ(
      Error("tokenizer train " + At("c.yaml") + " --vocab 5000 --out " + At("x.json") + " --quiet",
            2)
          .find("tessera: "),
      0u);
  EXPECT_FALSE(fs::exists(At("x.json")));
}

// Two words, each a document, over and over: the model learns to end after one.
TEST_F(Program, ADocumentEndsWhereItsTokenComes) {
  std::string rows;
  for (int i = 0; i < 800; ++i) rows += "{\"text\": \"word\"}\n\n";
  Write("rows.jsonl", rows);
  const std::string bpe = At("bpe.json"), run = At("out");
  EXPECT_EQ(Tessera("tokenizer train " + At("rows.jsonl") +
                    " --vocab 262 --special '<|end|>' --quiet --out " + bpe)
                .status,
            0);
  EXPECT_EQ(Tessera("train " + At("c.yaml") + " model.vocab=" + bpe + " --run " + run +
                    " 'train.data={jsonl: " + At("rows.jsonl") +
                    ", document_token: \"<|end|>\"}' train.steps=60 train.warmup=0 train.lr=1e-2")
                .status,
            0);
  const auto g = nlohmann::json::parse(
      Tessera("generate --run " + run + " --temperature 0 --json --prompt ''").output);
  EXPECT_EQ(g["text"], "word");
  EXPECT_EQ(g["finish"], "end");
  EXPECT_EQ(g["tokens"].back(), 261);
  EXPECT_EQ(
      Train("train.data.document_token=x"),
      "tessera: command line: train.data.document_token=x: document_token has no effect here: "
      "it needs `jsonl`, or `text` with a document_separator; take it away\n");
  EXPECT_EQ(Train("'train.data={jsonl: a, document_separator: x}'"),
            "tessera: command line: train.data={jsonl: a, document_separator: x}: "
            "document_separator has no effect here: it needs `text`, a file of plain text; take it "
            "away\n");
}

TEST_F(Program, DataThatIsNoTextIsToldOf) {
  Write("packed.txt", std::string("\x1f\x8b\x08\x00", 4) + std::string(3000, 'x'));
  EXPECT_EQ(Train("train.data.text=" + At("packed.txt")),
            "tessera: F/packed.txt: the file is gzip, not text; unpack it with `gunzip` and give "
            "the result\n");
  std::string wide;
  for (int i = 0; i < 3000; ++i) wide += {static_cast<char>('a' + i % 7), '\0'};
  Write("wide.txt", wide);
  const std::string warning = "warning: " + At("wide.txt") +
                              ": the file looks like UTF-16LE, which is read byte for byte here; "
                              "`iconv -f UTF-16 -t UTF-8` "
                              "makes it UTF-8\n";
  const Ended trained =
      Shell(std::string(kProgram) + " train " + At("c.yaml") +
            " train.data.text=" + At("wide.txt") + " --quiet --run " + At("out") + " 2>&1");
  EXPECT_EQ(trained.status, 0);
  EXPECT_NE(trained.output.find(warning), std::string::npos) << trained.output;
  const Ended eval = Shell(std::string(kProgram) + " eval --run " + At("out") + " --data " +
                           At("wide.txt") + " 2>&1");
  EXPECT_EQ(eval.status, 0);
  EXPECT_NE(eval.output.find(warning), std::string::npos) << eval.output;
}

TEST_F(Program, EveryReadyConfigTrains) {
  ASSERT_GE(ReadyConfigs().size(), 5u);
  for (const ReadyConfig& c : ReadyConfigs()) {
    EXPECT_NE(c.Summary(), "") << c.name;
    const Ended ended =
        Tessera(std::string("train ") + c.name + " train.data.text=" + At("text.txt") +
                " train.steps=1 train.batch=1 train.seq=64 train.eval_every=0 --run " + At(c.name));
    EXPECT_EQ(ended.status, 0) << c.name;
  }
}

TEST_F(Program, DescribeCountsWhatItDraws) {
  const auto cost = nlohmann::json::parse(Tessera("describe " + At("c.yaml") + " --json").output);
  for (const char* key : {"parameters", "active_parameters", "flops_per_token", "state_bytes",
                          "kv_bytes_per_token", "activation_bytes", "cuda_scratch_bytes", "layers"})
    EXPECT_TRUE(cost.contains(key)) << key;
  int64_t parameters = 0, kept = 0;
  for (const auto& layer : cost["layers"]) {
    for (const char* key : {"path", "active_parameters", "flops_per_token", "state_bytes",
                            "kv_bytes_per_token", "activation_bytes"})
      EXPECT_TRUE(layer.contains(key)) << key;
    parameters += layer["parameters"].get<int64_t>();
    kept += layer["activation_bytes"].get<int64_t>();
  }
  EXPECT_EQ(cost["parameters"], parameters);
  // What the layers keep is most of the peak. A layer that runs again keeps its input alone.
  EXPECT_GT(kept, cost["activation_bytes"].get<int64_t>() / 2);
  EXPECT_LE(kept, cost["activation_bytes"].get<int64_t>());
  const auto again = nlohmann::json::parse(
      Tessera("describe --json " + At("c.yaml") + " 'model.layers[0].recompute=true'").output);
  EXPECT_EQ(again["layers"][1]["activation_bytes"],
            cost["batch"].get<int64_t>() * cost["seq"].get<int64_t>() * 32 * 4);
  EXPECT_LT(cost["active_parameters"], cost["parameters"]);
  const std::string drawn = Tessera("describe " + At("c.yaml")).output;
  EXPECT_NE(
      drawn.find(
          "├─ moe            x + f(norm x)          experts: 2, top_k: 1, d_ff: 16, renormalise: "
          "false\n"),
      std::string::npos)
      << drawn;
}

TEST_F(Program, CompletionKnowsCommandsChoicesAndKeys) {
  const auto completed = [](const std::string& words, int at) {
    return Shell("bash -c 'source <(" + std::string(kProgram) +
                 " completion bash); cd /; COMP_WORDS=(" + words +
                 "); COMP_CWORD=" + std::to_string(at) + "; _tessera; echo \"${COMPREPLY[@]}\"'")
        .output;
  };
  EXPECT_EQ(completed("tessera desc", 1), "describe\n");
  EXPECT_EQ(completed("tessera train --device c", 3), "cpu cuda\n");
  EXPECT_EQ(completed("tessera train quickstart train.warm", 3), "train.warmup=\n");
  EXPECT_EQ(completed("tessera tokenizer train --vo", 3), "--vocab\n");
  EXPECT_EQ(completed("tessera blocks mam", 2), "mamba2\n");
  for (const char* shell : {"zsh", "fish"})
    EXPECT_NE(Tessera(std::string("completion ") + shell).output.find("device"), std::string::npos)
        << shell;
}

TEST_F(Program, BenchWritesItsRowsAndDrawsThem) {
  const std::string json = At("b.json"), svg = At("b.svg");
  const Ended ended =
      Tessera("bench gla " + At("c.yaml") +
              " --seq 16,32 --tokens 32 --rounds 1 --d-model 32 --json " + json + " --svg " + svg);
  EXPECT_EQ(ended.status, 0);
  std::ifstream file(json);
  EXPECT_EQ(nlohmann::json::parse(file).size(), 2u * 2 * 4);
  const std::string drawn = Shell("cat " + svg).output;
  for (const char* mode : {"train", "forward", "prefill", "decode"})
    EXPECT_NE(drawn.find(std::string(mode) + ": tokens a second"), std::string::npos) << mode;
  // A path that cannot be written is told before hours of timing.
  for (const char* option : {"--json ", "--svg "}) {
    const auto begin = std::chrono::steady_clock::now();
    EXPECT_NE(Error(std::string("bench mlp --rounds 10000 --seq 4096 ") + option + At("no/f"), 1)
                  .find("No such file or directory"),
              std::string::npos);
    EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(30));
  }
}

}  // namespace
}  // namespace tessera
