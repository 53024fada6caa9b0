#include "train/run_config.h"

#include <filesystem>

#include "absl/strings/str_cat.h"
#include "arch/map_reader.h"
#include "core/status.h"
#include "train/ready_configs.h"

namespace tessera {

void DataKeys::Fields(FieldList& f) {
  f.Add("text", text, "a file of plain text");
  f.Add("jsonl", jsonl, "a file with a JSON object a line, documents under `text`");
  f.Add("tokens", tokens, "a binary file of token ids, as `tessera tokenizer encode` writes it");
  f.Add("document_separator", document_separator,
        "of `text`: what stands between documents; without it the file is one text");
  f.Add("document_token", document_token,
        "of documents: a text that is one token, put before each and after the last, so that their "
        "ends are learnt");
  f.Add("val_fraction", val_fraction, Between(0, 0.5), "part of the data kept for validation");
  using Encoding = TokenFileConfig::Encoding;
  f.Add("encoding", encoding,
        {{"header", Encoding::kHeader}, {"u16", Encoding::kU16}, {"u32", Encoding::kU32}},
        "of `tokens`: with llm.c's header, or raw ids of that width");
  f.Add("document_id", document_id, AtLeast(0), "of `tokens`: the id that begins each document");
}

DataConfig DataKeys::Config() const {
  return {.format = !text.empty()    ? DataConfig::Format::kText
                    : !jsonl.empty() ? DataConfig::Format::kJsonl
                                     : DataConfig::Format::kTokens,
          .path = text + jsonl + tokens,
          .val_fraction = val_fraction,
          .tokens = {.encoding = encoding, .document_id = document_id.value_or(-1)},
          .documents = {.separator = document_separator, .token = document_token}};
}

void TrainConfig::Fields(FieldList& f) {
  f.Add("data", data, "what to train on");
  f.Add("steps", steps, AtLeast(1), "optimizer steps that the schedule spans");
  f.Add("stop_at", stop_at, AtLeast(1), "stop after this step and save");
  f.Add("batch", batch, AtLeast(1), "sequences a micro-batch");
  f.Add("seq", seq, AtLeast(1), "tokens a sequence");
  f.Add("accumulate", accumulate, AtLeast(1), "micro-batches a step");
  f.Add("lr", lr, Positive(), "peak learning rate");
  f.Add("schedule", schedule,
        {{"cosine", ScheduleKind::kCosine},
         {"wsd", ScheduleKind::kWsd},
         {"constant", ScheduleKind::kConstant}},
        "of the learning rate after the warm-up");
  f.Add("warmup", warmup, AtLeast(0), "steps");
  f.Add("final_lr_ratio", final_lr_ratio, Between(0, 1), "last learning rate / peak");
  f.Add("decay_fraction", decay_fraction, Between(0, 1), "wsd: part of the steps that decays");
  f.Add("weight_decay", weight_decay, AtLeast(0), "of matrices");
  f.Add("beta1", beta1, FromBelow(0, 1), "AdamW");
  f.Add("beta2", beta2, FromBelow(0, 1), "AdamW");
  f.Add("epsilon", epsilon, Positive(), "AdamW");
  f.Add("clip", clip, AtLeast(0), "largest norm of the gradient; 0 does not clip");
  f.Add("precision", precision, {{"fp32", DType::kF32}, {"bf16", DType::kBF16}},
        "of activations and products; parameters and states are fp32");
  f.Add("seed", seed, "of weights and data order");
  f.Add("threads", threads, AtLeast(0), "0: one a core");
  f.Add("eval_every", eval_every, AtLeast(0), "steps between validations; 0 never");
  f.Add("eval_tokens", eval_tokens, AtLeast(1), "of the validation part, at most");
  f.Add("save_every", save_every, AtLeast(1), "steps between checkpoints");
  f.Add("keep", keep, AtLeast(1), "checkpoints kept");
}

Schedule TrainConfig::LearningRate() const {
  return {.kind = schedule,
          .peak = lr,
          .final_ratio = final_lr_ratio,
          .warmup_steps = warmup,
          .decay_fraction = decay_fraction,
          .steps = steps};
}

namespace {

absl::StatusOr<RunConfig> FromTree(ConfigNode root, const std::string& name,
                                   const std::vector<std::string>& overrides) {
  for (const std::string& o : overrides) TESSERA_RETURN_IF_ERROR(Override(&root, o));
  RunConfig config{.name = name};
  ErrorList errors;
  root.read = true;
  MapReader reader(root, "the config", &errors);
  if (const ConfigNode* model = reader.Require("model", "the model"))
    config.model = ReadModelConfig(*model, &errors);
  if (const ConfigNode* train = reader.Take("train")) {
    train->read = true;
    FieldList fields;
    config.train.Fields(fields);
    ReadMap(*train, fields, "train", &errors);
    const DataKeys& d = config.train.data;
    if ((d.text.empty() ? 0 : 1) + (d.jsonl.empty() ? 0 : 1) + (d.tokens.empty() ? 0 : 1) > 1)
      errors.Add(train->Error("train.data has more than one of text, jsonl, tokens; keep one"));
    if (d.tokens.empty() && (d.document_id || d.encoding != TokenFileConfig::Encoding::kHeader))
      errors.Add(train->Error(
          "train.data.encoding and document_id are of `tokens`, a binary file of ids"));
    if (!d.document_separator.empty() && (!d.jsonl.empty() || !d.tokens.empty()))
      errors.Add(train->Error("train.data.document_separator is of `text`"));
    if (!d.document_token.empty() &&
        (!d.tokens.empty() || (!d.text.empty() && d.document_separator.empty())))
      errors.Add(
          train->Error("train.data.document_token is of documents: of `jsonl`, or of `text` with a "
                       "document_separator; in `tokens` they have a document_id"));
  }
  reader.Finish();
  if (errors.empty()) ReportUnread(root, &errors);
  TESSERA_RETURN_IF_ERROR(errors.ToStatus());
  return config;
}

}  // namespace

absl::StatusOr<RunConfig> ReadRunConfig(const std::string& path,
                                        const std::vector<std::string>& overrides) {
  namespace fs = std::filesystem;
  const ReadyConfig* ready =
      fs::exists(path) && !fs::is_directory(path) ? nullptr : FindReadyConfig(path);
  if (ready != nullptr) return ParseRunConfig(ready->text, path, overrides);
  TESSERA_ASSIGN_OR_RETURN(ConfigNode root, ReadYamlFile(path));
  return FromTree(std::move(root), fs::path(path).stem().string(), overrides);
}

absl::StatusOr<RunConfig> ParseRunConfig(const std::string& text, const std::string& name,
                                         const std::vector<std::string>& overrides) {
  TESSERA_ASSIGN_OR_RETURN(ConfigNode root, ParseYaml(text, name + ".yaml"));
  return FromTree(std::move(root), name, overrides);
}

std::string PrintRunConfig(const RunConfig& config) {
  RunConfig copy = config;
  FieldList fields;
  copy.train.Fields(fields);
  ConfigNode root;
  root.kind = ConfigNode::Kind::kMap;
  root.entries.push_back({"model", {}, PrintModelConfig(config.model)});
  root.entries.push_back({"train", {}, PrintMap(fields)});
  return PrintYaml(root);
}

}  // namespace tessera
