#include "train/objective.h"

#include "absl/strings/str_cat.h"
#include "core/status.h"
#include "data/lanes.h"
#include "data/masked.h"
#include "train/run_config.h"

namespace tessera {

void ObjectiveConfig::Fields(FieldList& f) {
  f.Add(
      "objective", kind,
      {{"next_token", Kind::kNextToken}, {"masked", Kind::kMasked}, {"classify", Kind::kClassify}},
      "what the model tells: of each token the next one, tokens that are masked, or the label of "
      "a document");
  const auto masked = [this] { return is(Kind::kMasked); };
  const auto classify = [this] { return is(Kind::kClassify); };
  f.Add("mask_rate", mask_rate, UpTo(1), "part of the tokens that are to be told")
      .OnlyWith("`objective: masked`", masked);
  f.Add("mask_token", mask_token,
        "a text that is one token, read in place of those; none is the byte 0")
      .OnlyWith("`objective: masked`", masked);
  f.Add("label", label, "key of a document's class, from 0, in each object of train.data.jsonl")
      .OnlyWith("`objective: classify`", classify);
  f.Add("label_at", label_at,
        {{"first", LabelledConfig::At::kFirst}, {"last", LabelledConfig::At::kLast}},
        "token of a document at which its class is told")
      .OnlyWith("`objective: classify`", classify);
  f.Add("padding", padding,
        {{"apart", LabelledConfig::Padding::kApart}, {"seen", LabelledConfig::Padding::kSeen}},
        "behind a document shorter than train.seq: kept apart from it, or seen as zeros of its own")
      .OnlyWith("`objective: classify`", classify);
  f.Add("order", order, {{"shuffled", Order::kShuffled}, {"stream", Order::kStream}},
        "windows of the text in a random order, or in its own: each row goes on where it ended in "
        "the step before, and the model's state with it")
      .OnlyWith("`objective: next_token`", [this] { return is(Kind::kNextToken); });
}

TrainingData TrainingDataOf(const RunConfig& config) {
  const ObjectiveConfig& o = config.train.objective;
  const bool apart = o.padding == LabelledConfig::Padding::kApart;
  return {
      .max_tokens = config.train.seq,
      .packed = o.is(ObjectiveConfig::Kind::kClassify) ? apart : config.train.data.HasDocuments(),
      .ahead = o.is(ObjectiveConfig::Kind::kNextToken)};
}

absl::Status CheckObjective(const RunConfig& config) {
  const ObjectiveConfig& o = config.train.objective;
  const bool classify = o.is(ObjectiveConfig::Kind::kClassify);
  const DataKeys& data = config.train.data;
  if (classify && !config.model.classes)
    return absl::InvalidArgumentError(
        "train.objective: classify needs a head that scores classes; set model.classes to how many "
        "there are");
  if (!classify && config.model.classes)
    return absl::InvalidArgumentError(
        absl::StrCat("model.classes = ", *config.model.classes,
                     ": its head scores no tokens; set `train.objective: classify` or leave "
                     "model.classes out"));
  if (classify && data.jsonl.empty() && !data.Config().path.empty())
    return absl::InvalidArgumentError(
        "train.objective: classify reads documents with labels; set train.data.jsonl");
  return absl::OkStatus();
}

absl::StatusOr<std::shared_ptr<const BatchSource>> MakeBatches(const RunConfig& config,
                                                               const std::string& path,
                                                               const Dataset& data,
                                                               const Tokenizer& tokenizer) {
  using Source = std::shared_ptr<const BatchSource>;
  const TrainConfig& t = config.train;
  const ObjectiveConfig& o = t.objective;
  if (o.is(ObjectiveConfig::Kind::kMasked)) {
    const std::string mask = o.mask_token.empty() ? std::string(1, '\0') : o.mask_token;
    TESSERA_ASSIGN_OR_RETURN(const int32_t id, IdOfToken(tokenizer, mask));
    return Source(new MaskedTokens(
        data, {.rate = o.mask_rate, .mask_token = id, .vocab = tokenizer.vocab_size()}));
  }
  if (o.is(ObjectiveConfig::Kind::kClassify)) {
    TESSERA_ASSIGN_OR_RETURN(std::unique_ptr<BatchSource> labelled,
                             LabelledDocuments::Open(data, {.path = path,
                                                            .label = o.label,
                                                            .classes = *config.model.classes,
                                                            .at = o.label_at,
                                                            .padding = o.padding}));
    return Source(std::move(labelled));
  }
  if (o.order == ObjectiveConfig::Order::kStream) {
    auto lanes = std::make_shared<Lanes>(data);
    if (data.train_tokens() > 0)
      TESSERA_RETURN_IF_ERROR(lanes->Check(t.batch * t.accumulate, t.seq));
    return Source(std::move(lanes));
  }
  return Source(Source(), &data);
}

}  // namespace tessera
