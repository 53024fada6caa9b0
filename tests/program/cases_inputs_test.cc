#include "tests/program/cases.h"

// Data, settings and prompts that a person may give.

namespace tessera {
namespace {

TEST_F(Cases, DataWithoutATargetIsRefused) {
  const std::string out = Sh(R"sh(
yes '{"text": "a"}' | head -200 > d.jsonl
$train 'train.data={jsonl: d.jsonl}' train.seq=4; echo "ended $?"
$train; $TESSERA eval --run r --data d.jsonl --format jsonl --seq 4 >/dev/null; echo "ended $?"
)sh")
                              .output;
  EXPECT_SAYS(out, "so no token has a next one to predict");
  EXPECT_PRED_FORMAT2(::testing::IsNotSubstring, "ended 0", out);
}

TEST_F(Cases, GenerationStartsAtOnceHoweverLongItMayBe) {
  const std::string out = Sh(R"sh(
$train 'model.layers=[mamba2: {head_dim: 16}, gla: {heads: 2}, mlp]' >/dev/null
start=$(date +%s%N); $TESSERA generate --run r --prompt 'The ' --tokens 1000000 2>/dev/null | head -c 5 >/dev/null
[ $(( ($(date +%s%N) - start) / 1000000 )) -lt 2000 ] && echo soon
)sh")
                              .output;
  EXPECT_EQ(out, "soon\n");
}

TEST_F(Cases, ValuesOfOverridesAreTakenAsTheyStand) {
  const std::string out = Sh(R"sh(
for name in 'corpus #2.txt' 'a: b.txt' '*star.txt' 'x [1].txt' '@at.txt' '%d.txt' '&and.txt'; do
  cp en.txt "$name"; rm -rf r; $train "train.data.text=$name" >/dev/null; echo "ended $?"
  $train --resume | tail -1
done
yes zzzz | head -c 60000 > corpus; rm -rf r; $train 'train.data.text=corpus #3.txt'; echo "ended $?"
)sh")
                              .output;
  EXPECT_SAYS(out, "corpus #3.txt");
  EXPECT_EQ(out.find("ended 1"), out.rfind("ended 1")) << out;
  EXPECT_PRED_FORMAT2(::testing::IsNotSubstring, "ended 2", out);
}

TEST_F(Cases, KeysThatNothingReadsAreRefused) {
  const std::string out = Sh(R"sh(
for s in '{factor: 8, original_length: 32}' '{factor: 8, beta_fast: 5}'; do
  $train "model.layers[0].attention.rope.scaling=$s"; echo "ended $?"; done
$TESSERA describe t.yaml train.decay_fraction=0.5; echo "ended $?"
$TESSERA describe t.yaml train.data.document_id=3; echo "ended $?"
)sh")
                              .output;
  EXPECT_PRED_FORMAT2(::testing::IsNotSubstring, "ended 0", out);
  EXPECT_PRED_FORMAT2(::testing::IsNotSubstring, "ended 1", out);
  EXPECT_SAYS(out, "beta_fast");
  EXPECT_SAYS(out, "decay_fraction");
}

TEST_F(Cases, AtMostSoManyTokensAreEvaluated) {
  EXPECT_EQ(Sh(R"sh(
$train >/dev/null; for n in 1 10 65 100; do
$TESSERA eval --run r --data en.txt --tokens $n 2>/dev/null | grep -o 'over [0-9]* tokens'; done
)sh")
                .output,
            "over 1 tokens\nover 10 tokens\nover 65 tokens\nover 100 tokens\n");
}

TEST_F(Cases, SeedsDoNotWrap) {
  EXPECT_EQ(Sh(R"sh(
$train >/dev/null
for s in -1 1.5 18446744073709551616 99999999999999999999 18446744073709551615; do
  $TESSERA generate --run r --prompt a --tokens 2 --seed $s >/dev/null 2>&1; echo "ended $?"; done
)sh")
                .output,
            "ended 2\nended 2\nended 2\nended 2\nended 0\n");
  EXPECT_EQ(Sh(R"sh(
for n in 010 0x10 1e3 ' 5' 9223372036854775808 -3; do
  $TESSERA generate --run r --prompt a --tokens "$n" >/dev/null 2>&1; echo "ended $?"; done
)sh")
                .output,
            "ended 2\nended 2\nended 2\nended 2\nended 2\nended 2\n");
}

TEST_F(Cases, BlankLinesOfJsonlAreNoDocuments) {
  EXPECT_EQ(Sh(R"sh(
printf '{"text": "hello world, a document"}\n\n  \r\n{"text": "another document here"}\r\n\n' > d.jsonl
$train 'train.data={jsonl: d.jsonl, val_fraction: 0}' train.seq=8; echo "ended $?"
)sh")
                .output,
            "r\nended 0\n");
}

TEST_F(Cases, TheCompletionOfZshNeedsNothingElse) {
  if (!Has("zsh")) GTEST_SKIP() << "no zsh here";
  EXPECT_EQ(Sh("zsh -fc \"source <($TESSERA completion zsh)\"; echo \"ended $?\"").output,
            "ended 0\n");
}

TEST_F(Cases, AConfigOfARunReadsAsNumbersElsewhere) {
  const std::string config = Sh("$train >/dev/null; cat r/config.yaml").output;
  EXPECT_SAYS(config, "norm_eps: 1.0e-05");
  EXPECT_SAYS(config, "epsilon: 1.0e-08");
  EXPECT_PRED_FORMAT2(::testing::IsNotSubstring, "stop_at: none", config);
}

TEST_F(Cases, APromptMayComeFromAFileOrAPipe) {
  const std::string out = Sh(R"sh(
$train >/dev/null; printf 'the text' > p.txt
for how in "--prompt-file p.txt" "--prompt-file -" ; do
  $TESSERA generate --run r $how --tokens 3 --temperature 0 2>/dev/null <p.txt | head -c 8; echo; done
$TESSERA generate --run r --prompt 'the text' --stop ' ' --tokens 50 --json 2>/dev/null | grep -c '"text"'
)sh")
                              .output;
  EXPECT_EQ(out, "the text\nthe text\n1\n");
}

TEST_F(Cases, WhatAHastyHandTypesIsPointedAt) {
  const std::string out = Sh(R"sh(
$TESSERA train train.lr=1e-3 t.yaml --run r; echo "ended $?"
$TESSERA train t.yaml lr=1e-3 --run r; echo "ended $?"
$TESSERA --version | head -1; $train train.warmup=100 2>&1 | head -1
$TESSERA train t.yaml --run q --threads 1 train.warmup=100 2>&1 | grep -i warm
gzip -k en.txt; $TESSERA train t.yaml --run z --threads 1 train.data.text=en.txt.gz 2>&1 | grep -i gzip
)sh")
                              .output;
  EXPECT_SAYS(out, "ended 2");
  EXPECT_SAYS(out, "train.lr");
  EXPECT_SAYS(out, "warning");
  EXPECT_SAYS(out, "gzip");
}

}  // namespace
}  // namespace tessera
