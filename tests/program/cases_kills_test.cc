#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <sys/wait.h>

#include <chrono>
#include <cstring>
#include <thread>

#include "absl/strings/str_format.h"
#include "core/rng.h"
#include "io/files.h"
#include "tests/program/cases.h"
#include "train/checkpoint.h"

// A run that is killed again and again, half of the times while it saves, ends with the weights of
// one that never was. TESSERA_KILLS and TESSERA_TERMS set how often: 200 and 50 take some minutes.

namespace tessera {
namespace {

int CountFrom(const char* name, int otherwise) {
  const char* const text = getenv(name);
  return text == nullptr ? otherwise : atoi(text);
}

class Kills : public Cases {
 protected:
  pid_t Start(const std::string& run, const std::string& more) {
    const std::string command =
        absl::StrCat("cd '", folder_.path(""),
                     "'; exec '" TESSERA_BINARY_DIR "/tessera' train hybrid.yaml --run ", run,
                     " --resume-or-start --threads 1 --quiet ", more, " >>log 2>&1");
    const char* arguments[] = {"sh", "-c", command.c_str(), nullptr};
    pid_t child = -1;
    posix_spawn(&child, "/bin/sh", nullptr, nullptr, const_cast<char**>(arguments), environ);
    return child;
  }
  static int Wait(pid_t child) {
    int status = 0;
    waitpid(child, &status, 0);
    return status;
  }
  // A checkpoint is being written.
  bool Saving() const {
    DIR* const folder = opendir(folder_.path("run/checkpoints").c_str());
    if (folder == nullptr) return false;
    bool found = false;
    while (const dirent* entry = readdir(folder))
      found = found || std::strncmp(entry->d_name, ".tmp-", 5) == 0;
    closedir(folder);
    return found;
  }
  // Until a checkpoint is being written, or the child has ended.
  void WaitUntilSaving(pid_t child) const {
    siginfo_t ended{};
    while (!Saving() && ended.si_pid == 0) {
      waitid(P_PID, static_cast<id_t>(child), &ended, WEXITED | WNOHANG | WNOWAIT);
      std::this_thread::yield();
    }
  }
};

TEST_F(Kills, LeaveTheSameBits) {
  std::ofstream(folder_.path("hybrid.yaml"))
      << "model: {d_model: 32, layers: [{mamba2: {head_dim: 16, d_state: 8}}, {moe: {experts: 4, "
         "d_ff: 24}}, {gla: {heads: 2}}, {attention: {heads: 2, window: 20}}, mlp]}\n"
         "train: {data: {text: en.txt}, steps: 100000, batch: 2, seq: 32, eval_every: 0, "
         "save_every: 2}\n";
  const int kills = CountFrom("TESSERA_KILLS", 32), terms = CountFrom("TESSERA_TERMS", 8);
  const Rng rng(static_cast<uint64_t>(CountFrom("TESSERA_SEED", 1)), "kills");
  for (int i = 0; i < kills + terms; ++i) {
    // Spread evenly among the others.
    const bool term = (i + 1) * terms / (kills + terms) > i * terms / (kills + terms);
    const pid_t child = Start("run", "");
    std::this_thread::sleep_for(
        std::chrono::microseconds(static_cast<int64_t>(rng.Uniform(2 * i) * 120000)));
    if (i % 2 == 1) {
      WaitUntilSaving(child);
      std::this_thread::sleep_for(
          std::chrono::microseconds(static_cast<int64_t>(rng.Uniform(2 * i + 1) * 3000)));
    }
    kill(child, term ? SIGTERM : SIGKILL);
    const int status = Wait(child);
    if (WIFSIGNALED(status)) {
      EXPECT_EQ(WTERMSIG(status), term ? SIGTERM : SIGKILL) << "kill " << i;  // it had not begun
    } else {
      EXPECT_EQ(WEXITSTATUS(status), 130) << "kill " << i << ": " << *ReadFile(folder_.path("log"));
    }
  }
  // On from there, and a run that nothing stopped, to the same step.
  const absl::StatusOr<std::string> last = LatestCheckpoint(folder_.path("run"));
  const int64_t step = last.ok() ? atoll(last->substr(last->rfind('-') + 1).c_str()) + 3 : 3;
  for (const char* run : {"run", "whole"})
    ASSERT_EQ(Wait(Start(run, absl::StrCat("train.stop_at=", step))), 0)
        << *ReadFile(folder_.path("log"));
  for (const char* file : {"model.safetensors", "optimizer.safetensors"}) {
    const auto at = [&](const char* run) {
      return *ReadFile(
          folder_.path(absl::StrFormat("%s/checkpoints/step-%08d/%s", run, step, file)));
    };
    EXPECT_TRUE(at("run") == at("whole")) << file << " of step " << step;
  }
  const auto steps = [&](const char* run) {
    return testing::Shell(
               absl::StrCat("grep -o '\"step\":[0-9]*' '", folder_.path(run), "/metrics.jsonl'"))
        .output;
  };
  EXPECT_EQ(steps("run"), steps("whole")) << "no row is missing, none is there twice";
}

}  // namespace
}  // namespace tessera
