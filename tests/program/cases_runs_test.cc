#include "tests/program/cases.h"

// Runs, their folders, and what stops them.

namespace tessera {
namespace {

TEST_F(Cases, TwoTrainingsStartedTogetherGetTwoFolders) {
  const std::string out = Sh(R"sh(
for lr in 1e-3 2e-3; do
  $TESSERA train t.yaml --threads 1 --quiet train.steps=20 train.lr=$lr >out-$lr & done; wait
cat out-* | sort
grep -h 'lr:' runs/*/config.yaml | sort
wc -l < runs/t-1/metrics.jsonl
wc -l < runs/t-2/metrics.jsonl
)sh")
                              .output;
  EXPECT_EQ(out, "runs/t-1\nruns/t-2\n  lr: 0.001\n  lr: 0.002\n21\n21\n");
}

TEST_F(Cases, ASecondProcessInARunIsTurnedAway) {
  const std::string out = Sh(R"sh(
$train train.steps=100000 train.save_every=50 train.eval_every=0 & first=$!
for i in $(seq 1000); do [ -d r/checkpoints ] && break; sleep 0.05; done
$train --resume train.steps=100000; echo "second $?"
kill -INT $first; wait $first; echo "first $?"
steps=$(ls r/checkpoints | tail -1 | sed 's/step-0*//'); rows=$(wc -l < r/metrics.jsonl)
echo "lost $((steps - rows))"
)sh")
                              .output;
  EXPECT_SAYS(out, "r is in use by process ");
  EXPECT_SAYS(out, "second 1\n");
  EXPECT_SAYS(out, "first 130\nlost 0\n");
}

TEST_F(Cases, CtrlCWithAPipeThatClosesSaves) {
  // The reader of both outputs goes first, as tee does when Ctrl-C reaches a whole pipeline.
  const std::string out = Sh(R"sh(
mkfifo pipe
$TESSERA train t.yaml --run r --threads 1 train.steps=100000 train.save_every=100000 \
  train.eval_every=1 >pipe 2>&1 & run=$!
head -c 400 pipe >/dev/null
kill -INT $run; wait $run; echo "ended $?"
ls r/checkpoints | wc -l; ls r/report.html
)sh")
                              .output;
  EXPECT_EQ(out, "ended 130\n1\nr/report.html\n");
}

TEST_F(Cases, SignalsOfBatchSystemsSaveToo) {
  for (const char* signal : {"TERM", "HUP", "USR1", "XCPU"}) {
    const std::string out = Sh(absl::StrCat("signal=", signal, R"sh(
rm -rf r; $train train.steps=100000 train.save_every=100000 & run=$!
for i in $(seq 1000); do [ -s r/metrics.jsonl ] && break; sleep 0.02; done
kill -$signal $run; wait $run; echo "ended $?"
steps=$(ls r/checkpoints | sed 's/step-0*//')
echo "lost $((steps - $(grep -c '"loss"' r/metrics.jsonl)))"
)sh"))
                                .output;
    EXPECT_EQ(out, "r\nended 130\nlost 0\n") << signal;
  }
  EXPECT_SAYS(Sh(R"sh(
rm -rf r; (trap '' HUP; exec $TESSERA train t.yaml --run r --quiet train.steps=60) & run=$!
for i in $(seq 1000); do [ -s r/metrics.jsonl ] && break; sleep 0.02; done
kill -HUP $run; wait $run; echo "ended $?"
)sh")
                  .output,
              "ended 0\n");
}

TEST_F(Cases, ASignalNeedNotWaitForTheValidation) {
  const std::string out = Sh(R"sh(
for i in $(seq 64); do cat en.txt; done > big.txt
$train train.data.text=big.txt train.data.val_fraction=0.5 train.steps=10 train.eval_every=1 \
  train.eval_tokens=100000000 model.d_model=64 & run=$!
for i in $(seq 1000); do [ -s r/metrics.jsonl ] && break; sleep 0.02; done
kill -TERM $run; start=$(date +%s%N); wait $run; echo "ended $?"
echo $(( ($(date +%s%N) - start) / 1000000 )) >took
$TESSERA train t.yaml --run r --threads 1 --quiet train.data.text=big.txt \
  train.data.val_fraction=0.5 train.steps=10 train.eval_every=1 model.d_model=64 \
  train.eval_tokens=64 --resume; grep -c val_loss r/metrics.jsonl
)sh")
                              .output;
  EXPECT_EQ(out, "r\nended 130\nr\n10\n");
  int took_ms = 1 << 30;
  std::ifstream(folder_.path("took")) >> took_ms;
  EXPECT_LT(took_ms, 1000);
}

TEST_F(Cases, ARunGoesOnOnlyAsWhatItWas) {
  const std::string out = Sh(R"sh(
$train train.stop_at=3; cp r/config.yaml before.yaml
$train --resume model.norm_eps=1 'model.layers[0].attention.window=1' train.threads=2; echo "model $?"
cmp before.yaml r/config.yaml && echo kept
cp en.txt same.txt; $train --resume train.stop_at=4 train.data.text=same.txt; echo "moved $?"
sed 's/line/LINE/' en.txt > other.txt; $train --resume train.data.text=other.txt; echo "data $?"
$train --resume train.lr=1e-4; echo "rate $?"
$train --resume train.lr=1e-4 --override train.lr train.stop_at=5; echo "named $?"
$train --resume train.lr=1e-4 --override train.rate; echo "no such key $?"
$TESSERA train t.yaml --run q --override train.lr; echo "new run $?"
)sh")
                              .output;
  EXPECT_SAYS(out, "model.layers[0].attention.window: null -> 1");
  EXPECT_SAYS(out, "model.norm_eps: ");
  EXPECT_SAYS(out, "--override model.layers[0].attention.window");
  EXPECT_SAYS(out, "model 2\nkept\n");
  EXPECT_SAYS(out, "moved 0\n");
  EXPECT_SAYS(out, "train.data, what the file holds: ");
  EXPECT_SAYS(out, "data 2\n");
  EXPECT_SAYS(out, "train.lr: 0.003 -> ");
  EXPECT_SAYS(out, "rate 2\n");
  EXPECT_SAYS(out, "named 0\n");
  EXPECT_SAYS(out, "no such key 2\n");
  EXPECT_SAYS(out, "--override is for a run that goes on");
  EXPECT_SAYS(out, "new run 2\n");
}

TEST_F(Cases, TokensCountWhatWasTrained) {
  EXPECT_EQ(Sh(R"sh(
$train train.stop_at=3 >/dev/null; $train --resume train.seq=8 --override train.seq >/dev/null
grep -o '"tokens":[0-9]*' r/metrics.jsonl | tr '\n' ' '
)sh")
                .output,
            "\"tokens\":64 \"tokens\":128 \"tokens\":192 \"tokens\":208 \"tokens\":224 "
            "\"tokens\":240 ");
}

TEST_F(Cases, ALossThatIsNotFiniteKeepsWhatWasTrained) {
  const std::string out = Sh(R"sh(
$train train.steps=400 train.lr=1e6 train.warmup=400 train.clip=0; echo "ended $?"
steps=$(ls r/checkpoints | sed 's/step-0*//')
echo "lost $((steps - $(grep -c '"loss"' r/metrics.jsonl)))"
$train train.steps=400 train.warmup=400 train.clip=0 --resume train.lr=1e-3 --override train.lr \
  train.stop_at=$((steps + 2)); echo "resumed $?"
)sh")
                              .output;
  EXPECT_SAYS(out, "nothing was updated");
  EXPECT_SAYS(out, "is saved in r, --resume goes on from there");
  EXPECT_SAYS(out, "ended 1\nlost 0\n");
  EXPECT_SAYS(out, "resumed ");
}

TEST_F(Cases, ADiskThatFillsKeepsTheLastCheckpoint) {
  // A limit on the size of files is a full disk that needs no root.
  const std::string out = Sh(R"sh(
(ulimit -f 40; $train train.steps=3000 train.save_every=20 train.eval_every=0); echo "ended $?"
ls r/checkpoints | grep -c step; $train --resume train.steps=3000 train.stop_at=400 train.eval_every=0; echo "resumed $?"
)sh")
                              .output;
  EXPECT_SAYS(out, "(EFBIG)");
  EXPECT_SAYS(out, "ended 1\n");
  EXPECT_SAYS(out, "resumed 0\n");
}

TEST_F(Cases, RowsOfMetricsThatAreNotOursDoNotStopARun) {
  for (const char* row : {R"({"step":null,"note":"node rebooted"})", R"({"step":"3"})",
                          R"({"step":1.5})", R"({"step":-1})", R"({"step":99999999999999999999})",
                          R"({"step":3,"loss":"bad","x.load":["a"]})", "", "text", "[1]", "{"}) {
    EXPECT_EQ(Last(absl::StrCat("rm -rf r; $train train.stop_at=3; echo '", row,
                                "' >> r/metrics.jsonl\n$train --resume; echo \"ended $?\"")),
              "ended 0")
        << row;
  }
  EXPECT_SAYS(Sh("rm -rf r; $train train.stop_at=3; echo '{\"note\":\"kept\"}' >> r/metrics.jsonl\n"
                 "$train --resume; grep note r/metrics.jsonl")
                  .output,
              "{\"note\":\"kept\"}");
}

TEST_F(Cases, AnEmptyFolderCanBeARun) {
  EXPECT_SAYS(Sh("mkdir r; $train train.stop_at=2; echo \"ended $?\"").output, "ended 0\n");
  // Killed before its first checkpoint.
  EXPECT_SAYS(Sh("rm -r r/checkpoints; $train --resume; echo \"ended $?\"").output, "ended 0\n");
  EXPECT_SAYS(
      Sh("mkdir none; $TESSERA train t.yaml --run none --resume --quiet; echo \"ended $?\"").output,
      "none holds no run (there is no config.yaml in it); there is nothing to resume");
  EXPECT_SAYS(Sh("mkdir full; touch full/x; $TESSERA train t.yaml --run full --quiet").output,
              "full exists and holds other files; choose another --run directory");
}

TEST_F(Cases, ResumeOrStartIsOneCommandLine) {
  const std::string out = Sh(R"sh(
for stop in 2 4 6; do $train --resume-or-start train.stop_at=$stop; echo "ended $?"; done
wc -l < r/metrics.jsonl
$TESSERA train t.yaml --resume-or-start --quiet; echo "ended $?"
)sh")
                              .output;
  EXPECT_SAYS(out, "ended 0\nr\nended 0\nr\nended 0\n9\n");
  EXPECT_SAYS(out, "--resume-or-start needs --run");
  EXPECT_SAYS(out, "ended 2\n");
}

TEST_F(Cases, ResumeWithoutAFolderTakesTheNewestRun) {
  const std::string out = Sh(R"sh(
for i in 1 2; do $TESSERA train t.yaml --threads 1 --quiet train.stop_at=3; done
$TESSERA train t.yaml --threads 1 --quiet --resume; echo "ended $?"; ls runs
cp t.yaml u.yaml; $TESSERA train u.yaml --threads 1 --quiet --resume; echo "ended $?"
)sh")
                              .output;
  EXPECT_SAYS(out, "runs/t-2\nended 0\nt-1\nt-2\n");
  EXPECT_SAYS(out, "there is no run of u in runs/ to resume");
  EXPECT_SAYS(out, "ended 1\n");
}

TEST_F(Cases, AFolderNearARunIsPointedAt) {
  Sh("$TESSERA train t.yaml --run runs/mine --threads 1 --quiet");
  const auto generate = [&](const std::string& run) {
    return Sh("$TESSERA generate --prompt a --tokens 2 --run " + run).output;
  };
  EXPECT_SAYS(generate("runs"), "runs holds runs but is none; use --run with one of runs/mine");
  EXPECT_SAYS(generate("runs/mine/checkpoints"), "is a part of a run; use --run runs/mine");
  EXPECT_SAYS(generate("runs/mine/checkpoints/step-00000006/"), "use --run runs/mine");
  EXPECT_SAYS(generate("none"), "none does not exist");
  EXPECT_SAYS(generate("t.yaml"), "t.yaml is a file; a run is a folder");
}

TEST_F(Cases, ACheckpointThatIsReplacedWhileItIsReadIsNoError) {
  const std::string out = Sh(R"sh(
$train train.steps=100000 train.save_every=1 train.keep=1 train.eval_every=0 & run=$!
for i in $(seq 1000); do ls r/checkpoints/step-* >/dev/null 2>&1 && break; sleep 0.02; done
for i in $(seq 12); do $TESSERA generate --run r --prompt a --tokens 1 >said 2>&1 || cat said; done
kill -INT $run; wait $run; echo "ended $?"
)sh")
                              .output;
  EXPECT_EQ(out, "r\nended 130\n");
}

TEST_F(Cases, AdaptersGoWithTheirBaseAndAreMerged) {
  const std::string out = Sh(R"sh(
$train >/dev/null
cat > a.yaml <<END
model: {from: r, adapt: {lora: {rank: 2, match: "attention.*|mlp.in"}}}
train: {data: {text: en.txt}, steps: 6, batch: 2, seq: 32, lr: 0.02, warmup: 0}
END
$TESSERA describe a.yaml | grep 'are trained'
$TESSERA train a.yaml --run a --threads 1 --quiet
say() { $TESSERA generate --run $1 --prompt 'line 1' --tokens 20 --temperature 0 2>/dev/null; }
$TESSERA export a --merge -o m; echo "merged $?"
[ "$(say a)" = "$(say m)" ] && [ "$(say a)" != "$(say r)" ] && echo "one function"
$TESSERA eval --run a --data en.txt --json --threads 1 > a.json && $TESSERA eval --run m --data en.txt --json --threads 1 > m.json && echo evaluated
$TESSERA export a --merge -o m; echo "again $?"
$TESSERA export r --merge -o n; echo "plain $?"; ls -d n
$TESSERA export a -o n; echo "without $?"
$TESSERA export none --merge -o n; echo "none $?"
$TESSERA train a.yaml --run a --threads 1 --quiet --resume model.adapt.lora.rank=3; echo "rank $?"
mv r s; say a; $TESSERA generate --run a --prompt x; echo "gone $?"
)sh")
                              .output;
  EXPECT_SAYS(out, "544 of the 12880 parameters are trained; the others stay as they are.");
  EXPECT_SAYS(out, "a\nm\nmerged 0\none function\nevaluated\n");
  EXPECT_SAYS(out, "m exists; choose another folder with -o\nagain 1\n");
  EXPECT_SAYS(out,
              "r has nothing to merge: its model has no adapters (model.adapt), and its "
              "checkpoint holds all of its weights\nplain 2\n");
  EXPECT_SAYS(out, "--merge is required");
  EXPECT_SAYS(out, "without 2\n");
  EXPECT_SAYS(out, "none does not exist\nnone 1\n");
  EXPECT_SAYS(out, "model.adapt.lora.rank: 2 -> 3");
  EXPECT_SAYS(out, "rank 2\n");
  EXPECT_SAYS(out, "from: r does not exist\ngone 1\n");
}

}  // namespace
}  // namespace tessera
