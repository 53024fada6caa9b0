#include "tests/program/cases.h"

// Models that tell something else than the next token, and rows that go on from step to step.

namespace tessera {
namespace {

TEST_F(Cases, DocumentsAreClassified) {
  std::ofstream lines(folder_.path("l.jsonl"));
  for (int i = 0; i < 400; ++i)
    lines << R"({"text": ")" << std::string(static_cast<size_t>(4 + i % 23), "xyz"[i % 3])
          << std::string(static_cast<size_t>(i % 5), 'w') << R"(", "kind": )" << i % 3 << "}\n";
  lines.close();
  const std::string out = Sh(R"sh(
keys="model.classes=3 ~train.data.text train.data.jsonl=l.jsonl train.objective=classify"
keys="$keys train.label=kind train.steps=60 train.lr=3e-2 train.batch=8 train.data.val_fraction=0.2"
$train $keys || exit
grep -o '"val_accuracy":1.0' r/metrics.jsonl | tail -1
$TESSERA eval --run r --data l.jsonl --format jsonl 2>/dev/null | grep -o '1.000000 of the doc.*'
$TESSERA eval --run r --data en.txt; echo "text $?"
$TESSERA generate --run r --prompt x --tokens 3; echo "generated $?"
$TESSERA train t.yaml $keys train.label=text --quiet; echo "label $?"
$TESSERA train t.yaml train.objective=classify --quiet; echo "no classes $?"
$TESSERA train t.yaml model.classes=3 --quiet; echo "no objective $?"
$TESSERA train t.yaml model.classes=3 train.objective=classify --quiet; echo "no labels $?"
)sh")
                              .output;
  EXPECT_SAYS(out, "\"val_accuracy\":1.0\n");
  EXPECT_SAYS(out, "1.000000 of the documents right, over 400 documents in windows of 32\n");
  EXPECT_SAYS(out, "this run classifies documents; give --format jsonl, with labels\ntext 2\n");
  EXPECT_SAYS(out, "this model cannot generate: model.classes = 3, so its head scores classes");
  EXPECT_SAYS(out, "generated 2\n");
  EXPECT_SAYS(out, "l.jsonl:1: ");
  EXPECT_SAYS(out, "label 2\n");
  EXPECT_SAYS(out, "train.objective: classify needs a head that scores classes; set model.classes");
  EXPECT_SAYS(out, "no classes 2\n");
  EXPECT_SAYS(out, "model.classes = 3: its head scores no tokens; set `train.objective: classify`");
  EXPECT_SAYS(out, "no objective 2\n");
  EXPECT_SAYS(out, "classify reads documents with labels; set train.data.jsonl");
  EXPECT_SAYS(out, "no labels 2\n");
}

TEST_F(Cases, AnEncoderTellsMaskedTokensAndNothingElse) {
  const std::string out = Sh(R"sh(
layers='model.layers=[{nystromformer: {heads: 2, landmarks: 4, conv: 3}}, mlp]'
$train "$layers"; echo "next token $?"
$train "$layers" train.objective=masked train.mask_token=ab; echo "mask $?"
$train "$layers" train.objective=masked; echo "masked $?"
grep -c val_bits_per_byte r/metrics.jsonl
$TESSERA eval --run r --data en.txt --tokens 100 2>/dev/null | grep -o 'over .* tokens'
$TESSERA generate --run r --prompt x --tokens 3; echo "generated $?"
$TESSERA train t.yaml train.mask_rate=0.3 --quiet; echo "rate $?"
)sh")
                              .output;
  EXPECT_SAYS(
      out,
      "layers[0].nystromformer: sees the next token, which it would be trained to tell; use "
      "`train.objective: masked` or classify, since its landmarks are means over the whole "
      "sequence\nnext token 2\n");
  EXPECT_SAYS(out, "mask 2\n");
  EXPECT_SAYS(out, "masked 0\n1\nover 100 tokens\n");
  EXPECT_SAYS(out,
              "layers[0].nystromformer: cannot generate: a token's result depends on later "
              "ones, since its landmarks are means over the whole sequence\n");
  EXPECT_SAYS(out, "generated 2\n");
  EXPECT_SAYS(out, "mask_rate has no effect here: it needs `objective: masked`");
  EXPECT_SAYS(out, "rate 2\n");
}

TEST_F(Cases, RowsThatGoOnNeedStatesThatEnd) {
  const std::string out = Sh(R"sh(
$train train.order=stream; echo "grows $?"
$train train.order=stream 'model.layers[0].attention.window=40' || exit
$TESSERA eval --run r --data en.txt --tokens 500 2>/dev/null | grep -o 'over .* tokens'
$TESSERA train t.yaml train.order=stream 'model.layers=[mlp]' train.batch=1000 train.seq=512 --quiet
echo "rows $?"
)sh")
                              .output;
  EXPECT_SAYS(out, "layers[0].attention would grow without end; give attention a `window`");
  EXPECT_SAYS(out, "grows 2\n");
  EXPECT_SAYS(out, "over 500 tokens\n");
  EXPECT_SAYS(out, "train.order: stream gives each of the 1000 rows of a step");
  EXPECT_SAYS(out, "rows 2\n");
}

// Lengths of prompts and outputs that end within, at and behind a patch or a segment.
TEST_F(Cases, ModelsInPatchesAndSegmentsWriteAnyLength) {
  const std::string out = Sh(R"sh(
patches='model.layers=[{megabyte: {patch: 4, global_width: 24, global: [{attention: {heads: 2}}], layers: [{attention: {heads: 2}}, mlp]}, residual: false, norm: none}]'
segments='model.layers=[{recurrent_memory: {segment: 5, tokens: 2, layers: [{attention: {heads: 2}}, mlp]}}]'
groups='model.layers=[{hourglass: {shorten: 3, layers: [{attention: {heads: 2}}]}}]'
for layers in "$patches" "$segments" "$groups"; do
  rm -rf r; $train "$layers" >/dev/null || exit
  for prompt in x abc abcd abcdefghij; do for n in 1 2 9 23; do
    $TESSERA generate --run r --prompt $prompt --tokens $n --json >out 2>err || { cat err; exit; }
    grep -c '"tokens"' out
  done; done
done | sort | uniq -c | tr -s ' '
)sh")
                              .output;
  EXPECT_EQ(out, " 48 1\n");
}

}  // namespace
}  // namespace tessera
