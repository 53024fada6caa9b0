#include "core/limits.h"

#include <gtest/gtest.h>
#include <sched.h>
#include <sys/resource.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <thread>
#include <vector>

#include "core/arena.h"
#include "core/catch.h"
#include "core/parallel.h"
#include "tests/temporary_folder.h"

// What the system says of a container or a batch job, in a tree of our own.

namespace tessera {
namespace {

namespace fs = std::filesystem;

class LimitsTest : public ::testing::Test {
 protected:
  // A file of the tree; "proc/..." stands for /proc.
  void Write(const std::string& name, const std::string& text) {
    fs::create_directories(fs::path(folder_.path(name)).parent_path());
    std::ofstream(folder_.path(name)) << text;
  }
  SystemFiles Files() const { return {.proc = folder_.path("proc")}; }
  // The group /job/step of a v2 hierarchy at cg.
  void MakeV2() {
    Write("proc/meminfo", "MemTotal: 100 kB\nMemAvailable:   16777216 kB\n");
    Write("proc/self/cgroup", "0::/job/step\n");
    Write("proc/self/mountinfo",
          "30 20 0:26 / " + folder_.path("cg") + " rw,nosuid - cgroup2 cgroup2 rw\n");
  }
  TemporaryFolder folder_;
};

TEST_F(LimitsTest, TheMachinesOwnMemoryWhereNothingElseLimits) {
  Write("proc/meminfo", "MemTotal: 100 kB\nMemAvailable:   2048 kB\n");
  EXPECT_EQ(UsableMemory(Files()).free_bytes, 2048 * 1024);
  EXPECT_EQ(UsableMemory(Files()).by, "this machine has free");
}

TEST_F(LimitsTest, TheTightestGroupOfVersionTwo) {
  MakeV2();
  Write("cg/job/step/memory.max", "max\n");
  Write("cg/job/step/memory.current", "100\n");
  Write("cg/job/memory.max", "1000000\n");
  Write("cg/job/memory.current", "700000\n");
  Write("cg/job/memory.stat", "anon 400000\nfile 300000\ninactive_file 200000\n");
  EXPECT_EQ(UsableMemory(Files()).free_bytes, 1000000 - 700000 + 200000);
  EXPECT_EQ(UsableMemory(Files()).by, "its control group leaves");
  Write("cg/job/step/memory.high", "200000\n");
  EXPECT_EQ(UsableMemory(Files()).free_bytes, 199900);
  Write("cg/job/step/memory.current", "300000\n");
  EXPECT_EQ(UsableMemory(Files()).free_bytes, 0) << "never below nothing";
}

TEST_F(LimitsTest, GroupsOfVersionOneByTheirController) {
  Write("proc/meminfo", "MemAvailable: 16777216 kB\n");
  Write("proc/self/cgroup", "5:cpu,cpuacct:/box\n4:memory:/docker/abc\n0::/\n");
  // A container sees its own group as the root of the mount.
  Write("proc/self/mountinfo", "40 30 0:30 /docker/abc " + folder_.path("mem") +
                                   " ro - cgroup cgroup rw,memory\n" + "41 30 0:31 / " +
                                   folder_.path("cpu") + " ro - cgroup cgroup rw,cpu,cpuacct\n");
  Write("mem/memory.limit_in_bytes", "5000000\n");
  Write("mem/memory.usage_in_bytes", "1000000\n");
  EXPECT_EQ(UsableMemory(Files()).free_bytes, 4000000);
  Write("mem/memory.limit_in_bytes", "9223372036854771712\n");  // v1's word for no limit
  EXPECT_EQ(UsableMemory(Files()).by, "this machine has free");
  Write("cpu/box/cpu.cfs_quota_us", "-1\n");
  Write("cpu/box/cpu.cfs_period_us", "100000\n");
  const int all = UsableProcessors(Files());
  Write("cpu/box/cpu.cfs_quota_us", "50000\n");
  EXPECT_EQ(UsableProcessors(Files()), 1);
  EXPECT_GE(all, 1);
}

TEST_F(LimitsTest, ProcessorsByQuotaAndAffinity) {
  MakeV2();
  const int all = UsableProcessors(Files());
  Write("cg/job/cpu.max", "max 100000\n");
  EXPECT_EQ(UsableProcessors(Files()), all);
  Write("cg/job/cpu.max", "110000 100000\n");
  EXPECT_EQ(UsableProcessors(Files()), std::min(all, 2)) << "a part of one counts as one";
  Write("cg/job/step/cpu.max", "20000 100000\n");
  EXPECT_EQ(UsableProcessors(Files()), 1);
  // A thread's affinity is its own, so the rest of the tests keep theirs.
  std::thread([&] {
    cpu_set_t one;
    CPU_ZERO(&one);
    cpu_set_t mine;
    sched_getaffinity(0, sizeof mine, &mine);
    int first = 0;
    while (!CPU_ISSET(first, &mine)) ++first;
    CPU_SET(first, &one);
    sched_setaffinity(0, sizeof one, &one);
    EXPECT_EQ(UsableProcessors(), 1);
  }).join();
}

TEST(Limits, AnAddressSpaceLimitIsMemoryToo) {
  rlimit before;
  getrlimit(RLIMIT_AS, &before);
  rlimit tight = before;
  tight.rlim_cur = rlim_t{8} << 30;
  ASSERT_EQ(setrlimit(RLIMIT_AS, &tight), 0);
  const MemoryLimit limit = UsableMemory();
  const absl::Status no = CheckMemory(int64_t{1} << 40, "the thing", "make it smaller");
  setrlimit(RLIMIT_AS, &before);
  EXPECT_LT(limit.free_bytes, int64_t{8} << 30);
  EXPECT_TRUE(absl::IsResourceExhausted(no));
  EXPECT_EQ(std::string(no.message()).rfind("the thing needs 1024.00 GiB, but ", 0), 0u) << no;
  EXPECT_TRUE(CheckMemory(1, "", "").ok());
}

TEST(Limits, WhatIsThrownBelowTheEdgeIsAStatusAboveIt) {
  EXPECT_TRUE(absl::IsResourceExhausted(
      CatchErrors([]() -> absl::Status { throw OutOfMemory("none left"); })));
  EXPECT_TRUE(
      absl::IsResourceExhausted(CatchErrors([]() -> absl::Status { throw std::bad_alloc(); })));
  EXPECT_EQ(CatchErrors([]() -> absl::StatusOr<int> { throw std::runtime_error("the GPU"); })
                .status()
                .message(),
            "the GPU");
  EXPECT_EQ(*CatchErrors([]() -> absl::StatusOr<int> { return 3; }), 3);
  rlimit before;
  getrlimit(RLIMIT_AS, &before);
  const rlimit tight = {rlim_t{8} << 30, before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_AS, &tight), 0);
  const absl::Status no = CatchErrors([]() -> absl::Status {
    Arena arena(Arena::Backing::kMemory, int64_t{1} << 40);
    return absl::OkStatus();
  });
  setrlimit(RLIMIT_AS, &before);
  EXPECT_TRUE(absl::IsResourceExhausted(no)) << no;
}

TEST(Limits, ThreadsAreNoMoreThanProcessors) {
  const int before = Threads(), most = UsableProcessors();
  const absl::StatusOr<std::string> told = UseThreads(1000);
  EXPECT_EQ(Threads(), most);
  EXPECT_EQ(told->rfind("1000 threads were asked for, but this process may use", 0), 0u) << *told;
  EXPECT_EQ(*UseThreads(1), "");
  EXPECT_EQ(Threads(), 1);
  SetThreads(before);
}

TEST(ParallelFor, GivesTheCallerWhatABodyThrows) {
  const int before = Threads();
  for (const int threads : {1, 4}) {
    SetThreads(threads);
    EXPECT_THROW(ParallelFor(100,
                             [](int64_t c) {
                               if (c == 57) throw OutOfMemory("57");
                             }),
                 OutOfMemory);
    std::atomic<int> runs{0};
    ParallelFor(100, [&](int64_t) { runs.fetch_add(1); });
    EXPECT_EQ(runs.load(), 100) << "the pool goes on";
  }
  SetThreads(before);
}

TEST(ParallelFor, SeveralThreadsMayCallItAtOnce) {
  const int before = Threads();
  SetThreads(3);
  std::vector<std::thread> callers;
  std::atomic<int64_t> sum{0};
  for (int caller = 0; caller < 4; ++caller)
    callers.emplace_back([&] {
      for (int i = 0; i < 200; ++i) ParallelFor(50, [&](int64_t c) { sum.fetch_add(c); });
    });
  for (std::thread& t : callers) t.join();
  EXPECT_EQ(sum.load(), int64_t{4} * 200 * (49 * 50 / 2));
  SetThreads(before);
}

}  // namespace
}  // namespace tessera
