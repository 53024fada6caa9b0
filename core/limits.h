#ifndef TESSERA_CORE_LIMITS_H_
#define TESSERA_CORE_LIMITS_H_

#include <cstdint>
#include <stdexcept>
#include <string>

#include "absl/status/statusor.h"

// What this process may use of the machine it is on, which in a container, a batch job or under
// `ulimit` is less than what the machine has.

namespace tessera {

// Where the system says so; tests put a tree of their own there.
struct SystemFiles {
  std::string proc = "/proc";  // meminfo, self/cgroup, self/mountinfo, self/statm
};

// Processors that this process may keep busy: its affinity, and the quotas of its control groups
// (v1 and v2) rounded up. At least 1.
int UsableProcessors(const SystemFiles& files = {});

// Memory that this process may still take, and who says so.
struct MemoryLimit {
  int64_t free_bytes = 0;
  std::string by;  // "this machine has", "its control group leaves", "ulimit -v leaves"
};
// The least of what the machine has available, what its control groups leave (their page cache can
// be taken back and so counts as free), and what its limits on address space and data leave.
MemoryLimit UsableMemory(const SystemFiles& files = {});

// An error if `need_bytes` exceed UsableMemory: "WHAT needs 3.20 GiB, but ulimit -v leaves 1.00;
// FIX".
absl::Status CheckMemory(int64_t need_bytes, const std::string& what, const std::string& fix);

// Sets the threads (core/parallel.h) that a person asks for; 0: one a processor. More threads than
// processors only wait for one another, so there are never more than those. The string is what to
// tell: empty, or why fewer run than were asked for. An error where the system starts fewer than
// `wanted` >= 1.
absl::StatusOr<std::string> UseThreads(int64_t wanted);

// Why the system started fewer threads than SetThreads asked for; empty if it did not.
std::string MissingThreads();

// Memory that the system refused. Thrown where no Status can be returned; CatchErrors
// (core/catch.h) turns it into one at the library's edge.
class OutOfMemory : public std::runtime_error {
 public:
  explicit OutOfMemory(const std::string& what) : std::runtime_error(what) {}
};

}  // namespace tessera

#endif  // TESSERA_CORE_LIMITS_H_
