#include "train/run_config.h"

#include <filesystem>
#include <map>

#include "absl/strings/str_cat.h"
#include "arch/tuning_check.h"
#include "config/map_reader.h"
#include "core/sizes.h"
#include "core/status.h"
#include "train/ready_configs.h"
#include "train/weights.h"

namespace tessera {

void DataKeys::Fields(FieldList& f) {
  f.Add("text", text, "a file of plain text");
  f.Add("jsonl", jsonl, "a file with a JSON object a line, documents under `text`");
  f.Add("tokens", tokens, "a binary file of token ids, as `tessera tokenizer encode` writes it");
  f.Add("document_separator", document_separator,
        "what stands between documents; without it the file is one text")
      .OnlyWith("`text`, a file of plain text", [this] { return !text.empty(); });
  f.Add("document_token", document_token,
        "of documents: a text that is one token, put before each and after the last, so that their "
        "ends are learnt")
      .OnlyWith("`jsonl`, or `text` with a document_separator", [this] {
        return !jsonl.empty() || (!text.empty() && !document_separator.empty());
      });
  f.Add("val_fraction", val_fraction, Between(0, 0.5), "part of the data kept for validation");
  using Encoding = TokenFileConfig::Encoding;
  const auto has_tokens = [this] { return !tokens.empty(); };
  f.Add("encoding", encoding,
        {{"header", Encoding::kHeader}, {"u16", Encoding::kU16}, {"u32", Encoding::kU32}},
        "of `tokens`: with llm.c's header, or raw ids of that width")
      .OnlyWith("`tokens`, a binary file of ids", has_tokens);
  f.Add("document_id", document_id, Between(0, INT32_MAX),
        "of `tokens`: the id that begins each document")
      .OnlyWith("`tokens`, a binary file of ids", has_tokens);
}

bool DataKeys::HasDocuments() const {
  return !jsonl.empty() || (!text.empty() && !document_separator.empty()) ||
         (!tokens.empty() && document_id.has_value());
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
  objective.Fields(f);
  f.Add("steps", steps, Between(1, kMaxSteps), "optimizer steps that the schedule spans");
  f.Add("stop_at", stop_at, Between(1, kMaxSteps), "stop after this step and save");
  f.Add("batch", batch, Between(1, kMaxBatch), "sequences a micro-batch");
  f.Add("seq", seq, Between(1, kMaxSeq), "tokens a sequence");
  f.Add("accumulate", accumulate, Between(1, kMaxAccumulate), "micro-batches a step");
  f.Add("lr", lr, Positive(), "peak learning rate");
  f.Add("schedule", schedule,
        {{"cosine", ScheduleKind::kCosine},
         {"wsd", ScheduleKind::kWsd},
         {"constant", ScheduleKind::kConstant}},
        "of the learning rate after the warm-up");
  f.Add("warmup", warmup, Between(0, kMaxSteps), "steps");
  f.Add("final_lr_ratio", final_lr_ratio, Between(0, 1), "last learning rate / peak")
      .OnlyWith("`schedule: cosine` or wsd",
                [this] { return schedule != ScheduleKind::kConstant; });
  f.Add("decay_fraction", decay_fraction, Between(0, 1), "part of the steps that decays")
      .OnlyWith("`schedule: wsd`", [this] { return schedule == ScheduleKind::kWsd; });
  optimizer.Fields(f);
  f.Add("freeze", freeze,
        "parameters that stay as they are, by patterns of their names: * is any text, | stands "
        "between alternatives, ! before one that is left out, and a name may begin at any of its "
        "parts, as in [embedding, \"layers*|!*norm\"]");
  f.Add("clip", clip, AtLeast(0), "largest norm of the gradient; 0 does not clip");
  f.Add("precision", precision, {{"fp32", DType::kF32}, {"bf16", DType::kBF16}},
        "of activations and products; parameters and states are fp32");
  f.Add("seed", seed, "of weights and data order");
  f.Add("threads", threads, Between(0, kMaxThreads), "0: one a core");
  f.Add("eval_every", eval_every, Between(0, kMaxSteps), "steps between validations; 0 never");
  f.Add("eval_tokens", eval_tokens, Between(1, kMaxSteps), "of the validation part, at most");
  f.Add("save_every", save_every, Between(1, kMaxSteps), "steps between checkpoints");
  f.Add("keep", keep, Between(1, kMaxCount), "checkpoints kept");
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

// The two maps of a config with their keys.
std::vector<Field> TopFields(RunConfig* config) {
  FieldList top;
  top.Add("train", config->train, "");
  top.Add("model", config->model, "");
  return top.all();
}

void ReadTrain(const ConfigNode& node, TrainConfig* train, ErrorList* errors) {
  node.read = true;
  FieldList fields;
  train->Fields(fields);
  ReadMap(node, fields, "train", errors);
  const DataKeys& d = train->data;
  if ((d.text.empty() ? 0 : 1) + (d.jsonl.empty() ? 0 : 1) + (d.tokens.empty() ? 0 : 1) > 1)
    errors->Add(node.Error("train.data has more than one of text, jsonl, tokens; keep one"));
  if (errors->empty() && CheckedProduct({train->batch, train->seq}) > kMaxTokens)
    errors->Add(node.Error(absl::StrCat("train.batch x train.seq = ", train->batch, " x ",
                                        train->seq, " tokens a micro-batch; at most ", kMaxTokens,
                                        ". Use train.accumulate for larger steps")));
}

absl::StatusOr<RunConfig> FromTree(ConfigNode root, const std::string& name,
                                   const std::vector<std::string>& overrides) {
  for (const std::string& o : overrides) TESSERA_RETURN_IF_ERROR(Override(&root, o));
  for (ConfigNode::Entry& e : root.entries)
    if (e.key == "model") TESSERA_RETURN_IF_ERROR(InheritModel(&e.value));
  RunConfig config{.name = name};
  ErrorList errors, train_errors;
  root.read = true;
  MapReader reader(root, "the config", &errors);
  // The model's layers are told how long a sequence is; its mistakes come first all the same.
  const ConfigNode* const model = reader.Require("model", "the model");
  if (const ConfigNode* train = reader.Take("train"))
    ReadTrain(*train, &config.train, &train_errors);
  if (model != nullptr) config.model = ReadModelConfig(*model, TrainingDataOf(config), &errors);
  errors.Add(train_errors);
  config.model.tuning.freeze = config.train.freeze;
  if (errors.empty() && !config.train.freeze.empty())
    CheckFreeze(config.model, *root.Find("train")->Find("freeze"), &errors);
  reader.Finish(TopFields(&config));
  if (errors.empty())
    if (const absl::Status s = CheckObjective(config); !s.ok()) errors.Add(root.Error(s.message()));
  if (errors.empty()) ReportUnread(root, &errors);
  TESSERA_RETURN_IF_ERROR(errors.ToStatus());
  return config;
}

}  // namespace

absl::StatusOr<RunConfig> ReadRunConfig(const std::string& path,
                                        const std::vector<std::string>& overrides) {
  namespace fs = std::filesystem;
  std::error_code ignored;  // what is wrong with the path is told when it is opened
  const bool there = fs::exists(path, ignored);
  const ReadyConfig* ready =
      there && !fs::is_directory(path, ignored) ? nullptr : FindReadyConfig(path);
  const bool assigns = path.rfind('~', 0) == 0 || path.find('=') < path.find_first_of("/\n");
  if (!there && ready == nullptr && assigns && fs::path(path).extension() != ".yaml")
    return absl::InvalidArgumentError(
        absl::StrCat("'", path, "' sets a key, and the config comes before it: CONFIG ", path));
  if (ready != nullptr) return ParseRunConfig(ready->text, path, overrides);
  TESSERA_ASSIGN_OR_RETURN(ConfigNode root, ReadYamlFile(path));
  return FromTree(std::move(root), fs::path(path).stem().string(), overrides);
}

absl::StatusOr<RunConfig> ParseRunConfig(const std::string& text, const std::string& name,
                                         const std::vector<std::string>& overrides) {
  TESSERA_ASSIGN_OR_RETURN(ConfigNode root, ParseYaml(text, name + ".yaml"));
  return FromTree(std::move(root), name, overrides);
}

namespace {

void WarnOfShares(const StackConfig& stack, std::vector<std::string>* warnings) {
  std::map<std::string, int> shared;
  for (const LayerConfig& l : stack.list) {
    if (!l.share.empty()) ++shared[l.share];
    for (const BranchConfig& b : l.branches)
      for (const HeldLayers& held : b.config->Layers()) WarnOfShares(*held.layers, warnings);
  }
  for (const auto& [name, layers] : shared)
    if (layers == 1)
      warnings->push_back(absl::StrCat(
          "share: ", name, " is the name of one layer alone: its weights are shared with none"));
}

}  // namespace

std::vector<std::string> Warnings(const RunConfig& config) {
  const TrainConfig& t = config.train;
  const TrainConfig defaults;
  const int64_t last = t.LastStep();
  std::vector<std::string> warnings;
  if (t.warmup > last)
    warnings.push_back(absl::StrCat("train.warmup = ", t.warmup, " is longer than the run of ",
                                    last, " steps: the learning rate never reaches train.lr"));
  if (t.stop_at && *t.stop_at > t.steps)
    warnings.push_back(absl::StrCat("train.stop_at = ", *t.stop_at, " is after the last step, ",
                                    t.steps, ": it changes nothing"));
  // An interval that nobody chose is no surprise.
  if (t.eval_every > last && t.eval_every != defaults.eval_every)
    warnings.push_back(absl::StrCat("train.eval_every = ", t.eval_every, " exceeds the ", last,
                                    " steps of the run: only its end is validated"));
  if (t.save_every > last && t.save_every != defaults.save_every)
    warnings.push_back(absl::StrCat("train.save_every = ", t.save_every, " exceeds the ", last,
                                    " steps of the run: only its end is saved"));
  WarnOfShares(config.model.layers, &warnings);
  if (config.model.tuning.adapt && config.model.from.empty())
    warnings.push_back(
        "model.adapt without model.from: the weights beside the adapters stay as they are drawn");
  return warnings;
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
