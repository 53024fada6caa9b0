#include "tests/program/cases.h"

// Limits of the system, sizes, and outputs that cannot be written.

namespace tessera {
namespace {

// Ends of a program that a person's input must never reach.
void ExpectNoCrash(const std::string& out) {
  for (const char* sign : {"terminate called", "internal error", "Segmentation", "Aborted",
                           "ended 134", "ended 139", "ended 137"})
    EXPECT_PRED_FORMAT2(::testing::IsNotSubstring, sign, out);
}

TEST_F(Cases, AnOutputFollowsLinksAndWritesStraightIntoWhatIsNoFile) {
  EXPECT_EQ(Sh(R"sh(
echo old > real.json; chmod 640 real.json; ln -s real.json link.json
$TESSERA tokenizer train en.txt --vocab 300 --out link.json --quiet
readlink link.json; head -c 1 real.json; echo; stat -c %a real.json
mkfifo pipe; $TESSERA tokenizer train en.txt --vocab 300 --out pipe --quiet & head -c 1 pipe; echo
wait; [ -p pipe ] && echo pipe
$TESSERA tokenizer train en.txt --vocab 300 --out /dev/stdout --quiet | cmp - real.json && echo stdout
$TESSERA tokenizer train en.txt --vocab 300 --out /dev/null --quiet
[ -c /dev/null ] && echo device
ln -s loop loop; $TESSERA tokenizer train en.txt --vocab 300 --out loop --quiet >/dev/null 2>&1
echo "loop $?"; ls | grep -c tmp-
)sh")
                .output,
            "real.json\n{\n640\n{\npipe\nstdout\ndevice\nloop 1\n0\n");
}

TEST_F(Cases, ManyMicroBatchesFitTheMemoryThatWasTaken) {
  for (const char* n : {"100", "200", "512", "4096"})
    EXPECT_EQ(Last(absl::StrCat("rm -rf r; $train train.steps=1 train.batch=1 train.seq=8 "
                                "train.eval_every=0 train.accumulate=",
                                n, "; echo \"ended $?\"")),
              "ended 0")
        << n;
}

TEST_F(Cases, PathsThatCannotBeUsedAreErrors) {
  const std::string out = Sh(R"sh(
$TESSERA describe "$(cat t.yaml)"; echo "ended $?"
$TESSERA describe "$(printf 'x%.0s' {1..300})"; echo "ended $?"
ln -s loop loop; $TESSERA train t.yaml --run loop --quiet; echo "ended $?"
$TESSERA eval --run loop --data en.txt; echo "ended $?"
$TESSERA generate --run "$(printf 'x%.0s' {1..300})" --prompt a; echo "ended $?"
$TESSERA train t.yaml --run "r/$(printf 'x%.0s' {1..300})" --quiet; echo "ended $?"
$TESSERA train t.yaml --run t.yaml/x --quiet; echo "ended $?"
$TESSERA train t.yaml --run r train.data.text=loop --quiet; echo "ended $?"
)sh")
                              .output;
  ExpectNoCrash(out);
  EXPECT_SAYS(out, "ELOOP");
  EXPECT_SAYS(out, "ENAMETOOLONG");
  EXPECT_PRED_FORMAT2(::testing::IsNotSubstring, "ended 0", out);
}

TEST_F(Cases, AFolderWithoutPermissionIsAnError) {
  if (!Has("setpriv") || geteuid() != 0) GTEST_SKIP() << "needs root and setpriv";
  const std::string out = Sh(R"sh(
mkdir private; cp t.yaml private; chmod 700 private; chmod 777 .
as="setpriv --reuid=65534 --regid=65534 --clear-groups"
$as $TESSERA describe private/t.yaml; echo "ended $?"
$as $TESSERA train t.yaml --run private/r --quiet; echo "ended $?"
)sh")
                              .output;
  ExpectNoCrash(out);
  EXPECT_SAYS(out, "EACCES");
  EXPECT_PRED_FORMAT2(::testing::IsNotSubstring, "ended 0", out);
}

TEST_F(Cases, ALimitOnProcessesIsAnErrorOrOneThread) {
  if (!Has("setpriv") || !Has("prlimit") || geteuid() != 0)
    GTEST_SKIP() << "needs root and setpriv";
  const std::string out = Sh(R"sh(
chmod 777 .; as="setpriv --reuid=65534 --regid=65534 --clear-groups prlimit --nproc=1:1"
$as $TESSERA train t.yaml --run a --quiet; echo "ended $?"
$as $TESSERA train t.yaml --run b --quiet --threads 1; echo "ended $?"
$as $TESSERA eval --run b --data en.txt --threads 1; echo "ended $?"
$as $TESSERA generate --run b --prompt a --tokens 3; echo "ended $?"
$as $TESSERA bench mlp --seq 16 --tokens 32 --d-model 16 --rounds 1 --threads 1; echo "ended $?"
)sh")
                              .output;
  ExpectNoCrash(out);
  EXPECT_PRED_FORMAT2(::testing::IsNotSubstring, "ended 1", out);
  if (Sh("nproc").output != "1\n") {
    EXPECT_SAYS(Sh(R"sh(
as="setpriv --reuid=65534 --regid=65534 --clear-groups prlimit --nproc=1:1"
$as $TESSERA train t.yaml --run c --quiet --threads 2; echo "ended $?"
)sh")
                    .output,
                "raise the limit on processes (ulimit -u, pids.max) or use --threads 1\nended 1\n");
  }
}

TEST_F(Cases, MemoryLimitsAreErrorsThatNameThem) {
  const std::string out = Sh(R"sh(
(ulimit -v 400000; $TESSERA train t.yaml --run a --threads 1 --quiet model.d_model=1024 \
   train.batch=16 train.seq=512 'model.layers=[mlp,mlp,mlp]'); echo "train ended $?"
$train; (ulimit -v 400000; $TESSERA eval --run r --data en.txt --seq 64 --batch 1000000 --threads 1); echo "eval ended $?"
(ulimit -v 6000000; $TESSERA bench mlp --seq 100000000 --modes forward --rounds 1 --d-model 64 \
   --tokens 16 --threads 1); echo "bench ended $?"
$TESSERA eval --run r --data en.txt --batch 1000000 --seq 128; echo "eval ended $?"
for kb in 20000 40000 60000 80000 120000; do
  (ulimit -v $kb; $TESSERA train t.yaml --run r-$kb --threads 1 --quiet); echo "at $kb ended $?"
  (ulimit -d $kb; $TESSERA generate --run r --prompt a --tokens 3 >/dev/null); echo "at $kb ended $?"
done
)sh")
                              .output;
  ExpectNoCrash(out);
  EXPECT_SAYS(out, "but ulimit -v leaves");
  EXPECT_SAYS(out, "train ended 1");
  EXPECT_SAYS(out, "bench ended 1");
  EXPECT_SAYS(out, "eval ended 1");
}

TEST_F(Cases, FewOpenFilesAreAnErrorOrARun) {
  for (const int n : {3, 4, 5, 6, 8, 12})
    ExpectNoCrash(
        Sh(absl::StrCat("rm -rf r; (ulimit -n ", n, "; $train); echo \"ended $?\"")).output);
  ExpectNoCrash(Sh("rm -rf r; (ulimit -s 256; $train); echo \"ended $?\"").output);
}

TEST_F(Cases, SizesWhoseProductOverflowsAreErrors) {
  const std::string out = Sh(R"sh(
ulimit -v 8000000
for big in 4611686018427387904 9223372036854775807 4294967296 1000000000; do
  for key in train.batch train.seq train.accumulate model.d_model train.threads; do
    rm -rf r; $train train.steps=1 $key=$big >/dev/null; echo "$key=$big ended $?"
  done
  for layers in "mlp: {d_ff: $big}" "moe: {shared: $big, shared_d_ff: 2}" "moe: {experts: $big}" \
      "attention: {heads: 1, head_dim: $big, rope: none}" "mamba2: {d_state: $big, head_dim: 16}" \
      "gla: {heads: $big}"; do
    rm -rf r; $train train.steps=1 "model.layers=[$layers]" >/dev/null; echo "$layers ended $?"
  done
  $TESSERA bench mlp --seq $big --modes forward --rounds 1 --d-model 16 --threads 1; echo "bench ended $?"
done
)sh")
                              .output;
  ExpectNoCrash(out);
  EXPECT_PRED_FORMAT2(::testing::IsNotSubstring, "ended 0", out);
}

TEST_F(Cases, AStandardOutputThatCannotBeWrittenIsAFailure) {
  const std::string out = Sh(R"sh(
$train >/dev/null
for c in "describe t.yaml" "describe t.yaml --json" "eval --run r --data en.txt --json" \
    "generate --run r --prompt a --tokens 5 --json" "generate --run r --prompt a --tokens 5" \
    "configs" "configs quickstart" "blocks --json" "blocks gla" "completion bash" "--help" \
    "train --help" "bench mlp --seq 16 --tokens 32 --d-model 16 --rounds 1 --threads 1"; do
  $TESSERA $c >/dev/full 2>/dev/null; a=$?; $TESSERA $c >&- 2>/dev/null; echo "$a $? $c"
done
rm -rf r; $train >/dev/full; echo "train $?"; ls r/report.html
)sh")
                              .output;
  EXPECT_PRED_FORMAT2(::testing::IsNotSubstring, "\n0 ", "\n" + out);
  EXPECT_PRED_FORMAT2(::testing::IsNotSubstring, " 0 ", out);
  EXPECT_SAYS(out, "train 1\nr/report.html\n");
}

TEST_F(Cases, MoreThreadsThanProcessorsCostNothing) {
  const std::string out = Sh(R"sh(
time_of() { start=$(date +%s%N); rm -rf r; $TESSERA train t.yaml --run r --quiet --threads $1 \
  train.steps=30 train.eval_every=0 model.d_model=64 train.batch=4 train.seq=128 >/dev/null
  echo $(( ($(date +%s%N) - start) / 1000000 )); }
a=$(time_of 2); b=$(time_of 64); c=$(time_of 2); d=$(time_of 64)
echo "$a $b $c $d"; [ $((b < d ? b : d)) -lt $((2 * (a > c ? a : c) + 200)) ] && echo fine
)sh")
                              .output;
  EXPECT_SAYS(out, "\nfine\n");
}

TEST_F(Cases, ThreadsHaveARange) {
  const std::string out =
      Sh("for n in 4294967297 2147483648 -1; do $train --threads $n; echo \"ended $?\"; done")
          .output;
  EXPECT_EQ(out.find("ended 0"), std::string::npos) << out;
  ExpectNoCrash(out);
}

}  // namespace
}  // namespace tessera
