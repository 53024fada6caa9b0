#include "core/limits.h"

#include <sched.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <optional>
#include <sstream>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "core/parallel.h"

namespace tessera {
namespace {

// Unset where there is no such file.
std::optional<std::string> TextOf(const std::string& path) {
  std::ifstream file(path);
  if (!file) return std::nullopt;
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

std::vector<std::string> LinesOf(const std::string& path) {
  return absl::StrSplit(TextOf(path).value_or(""), '\n');
}

// The whole number that a file holds; "max" and v1's huge numbers mean no limit and are unset.
std::optional<int64_t> NumberIn(const std::string& path) {
  const std::optional<std::string> text = TextOf(path);
  int64_t value;
  if (!text || !absl::SimpleAtoi(*text, &value) || value < 0 || value >= INT64_MAX / 2)
    return std::nullopt;
  return value;
}

// The number behind `key` in lines of "key number" or "key: number kB".
std::optional<int64_t> NumberOf(const std::string& text, const std::string& key) {
  for (const absl::string_view line : absl::StrSplit(text, '\n')) {
    const std::vector<absl::string_view> words = absl::StrSplit(line, ' ', absl::SkipEmpty());
    int64_t value;
    if (words.size() >= 2 && words[0] == key && absl::SimpleAtoi(words[1], &value))
      return words.size() >= 3 && words[2] == "kB" ? value * 1024 : value;
  }
  return std::nullopt;
}

// The folders of the control groups that this process is in, from its own to the root: those of v2
// where `controller` is empty, else those of v1 that have that controller.
std::vector<std::string> ControlGroups(const SystemFiles& files, const std::string& controller) {
  const bool v2 = controller.empty();
  std::string own;  // the group's path below the root of its hierarchy
  for (const std::string& line : LinesOf(files.proc + "/self/cgroup")) {
    const std::vector<std::string> parts = absl::StrSplit(line, absl::MaxSplits(':', 2));
    if (parts.size() != 3) continue;
    const std::vector<std::string> controllers = absl::StrSplit(parts[1], ',');
    if (v2 ? parts[0] == "0" && parts[1].empty()
           : std::find(controllers.begin(), controllers.end(), controller) != controllers.end())
      own = parts[2];
  }
  if (own.empty()) return {};
  for (const std::string& line : LinesOf(files.proc + "/self/mountinfo")) {
    // "36 35 98:0 ROOT MOUNT options... - TYPE source SUPER_OPTIONS"
    const std::vector<std::string> halves = absl::StrSplit(line, absl::MaxSplits(" - ", 1));
    if (halves.size() != 2) continue;
    const std::vector<std::string> mount = absl::StrSplit(halves[0], ' '),
                                   kind = absl::StrSplit(halves[1], ' ');
    if (mount.size() < 5 || kind.size() < 3) continue;
    const std::vector<std::string> options = absl::StrSplit(kind[2], ',');
    if (kind[0] != (v2 ? "cgroup2" : "cgroup")) continue;
    if (!v2 && std::find(options.begin(), options.end(), controller) == options.end()) continue;
    // A container may see only its own part of the hierarchy, mounted as if it were all of it.
    std::string below = own;
    if (mount[3] != "/" && absl::StartsWith(below, mount[3])) below = below.substr(mount[3].size());
    std::vector<std::string> folders;
    while (!below.empty() && below != "/") {
      folders.push_back(mount[4] + below);
      below.erase(below.rfind('/'));
    }
    folders.push_back(mount[4]);
    return folders;
  }
  return {};
}

void TakeLeast(MemoryLimit* least, int64_t bytes, const std::string& by) {
  bytes = std::max<int64_t>(0, bytes);
  if (bytes < least->free_bytes) *least = {bytes, by};
}

// What one group leaves; the cache of files in it is given up when memory is wanted.
void TakeGroup(MemoryLimit* least, const std::string& folder, const char* limit_name,
               const char* usage_name, const char* cache_name) {
  const std::optional<int64_t> limit = NumberIn(folder + "/" + limit_name);
  const std::optional<int64_t> usage = NumberIn(folder + "/" + usage_name);
  if (!limit || !usage) return;
  const int64_t cache =
      NumberOf(TextOf(folder + "/memory.stat").value_or(""), cache_name).value_or(0);
  TakeLeast(least, *limit - *usage + std::min(cache, *usage), "its control group leaves");
}

}  // namespace

int UsableProcessors(const SystemFiles& files) {
  double most = static_cast<double>(std::max(1L, sysconf(_SC_NPROCESSORS_ONLN)));
  for (int size = 1024; size <= 1 << 20; size *= 4) {  // grown until the kernel's mask fits
    cpu_set_t* const set = CPU_ALLOC(static_cast<size_t>(size));
    const size_t bytes = CPU_ALLOC_SIZE(static_cast<size_t>(size));
    const bool got = sched_getaffinity(0, bytes, set) == 0;
    if (got) most = std::min(most, static_cast<double>(CPU_COUNT_S(bytes, set)));
    CPU_FREE(set);
    if (got) break;
  }
  const auto quota = [&](std::optional<int64_t> quota_us, std::optional<int64_t> period_us) {
    if (quota_us && period_us && *quota_us > 0 && *period_us > 0)
      most = std::min(most, static_cast<double>(*quota_us) / static_cast<double>(*period_us));
  };
  for (const std::string& folder : ControlGroups(files, "")) {
    const std::vector<std::string> words =
        absl::StrSplit(TextOf(folder + "/cpu.max").value_or(""), ' ');
    int64_t quota_us, period_us;
    if (words.size() == 2 && absl::SimpleAtoi(words[0], &quota_us) &&
        absl::SimpleAtoi(words[1], &period_us))
      quota(quota_us, period_us);
  }
  for (const std::string& folder : ControlGroups(files, "cpu"))
    quota(NumberIn(folder + "/cpu.cfs_quota_us"), NumberIn(folder + "/cpu.cfs_period_us"));
  const int whole = static_cast<int>(most);
  return std::max(1, whole < most ? whole + 1 : whole);
}

MemoryLimit UsableMemory(const SystemFiles& files) {
  const std::string meminfo = TextOf(files.proc + "/meminfo").value_or("");
  const int64_t installed = static_cast<int64_t>(sysconf(_SC_PHYS_PAGES)) * sysconf(_SC_PAGE_SIZE);
  MemoryLimit least = {NumberOf(meminfo, "MemAvailable:").value_or(installed),
                       "this machine has free"};
  for (const std::string& folder : ControlGroups(files, "")) {
    TakeGroup(&least, folder, "memory.max", "memory.current", "inactive_file");
    TakeGroup(&least, folder, "memory.high", "memory.current", "inactive_file");
  }
  for (const std::string& folder : ControlGroups(files, "memory"))
    TakeGroup(&least, folder, "memory.limit_in_bytes", "memory.usage_in_bytes",
              "total_inactive_file");
  const std::vector<std::string> pages =
      absl::StrSplit(TextOf(files.proc + "/self/statm").value_or(""), ' ');
  const auto limit = [&](int resource, size_t column, const char* by) {
    rlimit r;
    int64_t used = 0;
    if (getrlimit(static_cast<__rlimit_resource>(resource), &r) != 0 ||
        r.rlim_cur >= static_cast<rlim_t>(INT64_MAX))
      return;
    if (column < pages.size() && absl::SimpleAtoi(pages[column], &used))
      used *= sysconf(_SC_PAGE_SIZE);
    TakeLeast(&least, static_cast<int64_t>(r.rlim_cur) - used, by);
  };
  limit(RLIMIT_AS, 0, "ulimit -v leaves");
  limit(RLIMIT_DATA, 5, "ulimit -d leaves");
  return least;
}

absl::Status CheckMemory(int64_t need_bytes, const std::string& what, const std::string& fix) {
  const MemoryLimit have = UsableMemory();
  if (need_bytes <= have.free_bytes) return absl::OkStatus();
  return absl::ResourceExhaustedError(absl::StrFormat("%s needs %.2f GiB, but %s %.2f; %s", what,
                                                      need_bytes * 0x1p-30, have.by,
                                                      have.free_bytes * 0x1p-30, fix));
}

absl::StatusOr<std::string> UseThreads(int64_t wanted) {
  const int most = UsableProcessors();
  SetThreads(wanted == 0 ? most : static_cast<int>(std::min<int64_t>(wanted, most)));
  if (const std::string refusal = MissingThreads(); !refusal.empty()) {
    const std::string what = absl::StrFormat("the system starts only %d of %d threads: %s",
                                             Threads(), wanted == 0 ? most : wanted, refusal);
    if (wanted == 0) return what;
    return absl::ResourceExhaustedError(absl::StrFormat(
        "%s; raise the limit on processes (ulimit -u, pids.max) or use --threads %d", what,
        Threads()));
  }
  if (wanted <= most) return std::string();
  return absl::StrFormat(
      "%d threads were asked for, but this process may use %d processor%s: %d run (results do not "
      "depend on it)",
      wanted, most, most == 1 ? "" : "s", most);
}

}  // namespace tessera
