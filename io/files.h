#ifndef TESSERA_IO_FILES_H_
#define TESSERA_IO_FILES_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace tessera {

// Files as a run directory needs them: read whole, mapped, or written so that a crash, a kill or a
// full disk leaves either the old file or the new one. Every error names the path, the system's
// reason and its errno.

// "cannot open x.txt: No such file or directory (ENOENT)". ENOENT becomes kNotFound, the rest
// kFailedPrecondition or, for a full disk, kResourceExhausted.
absl::Status FileError(absl::string_view action, absl::string_view path, int error_number);

// A whole regular file; larger ones than `max_bytes` are an error.
absl::StatusOr<std::string> ReadFile(const std::string& path, int64_t max_bytes = int64_t{1} << 30);

// A read-only mapping of a regular file, with the size it had when it was opened. The owner of the
// file must not shorten it while it is mapped. An empty file is mapped as empty bytes.
class MappedFile {
 public:
  MappedFile() = default;
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  ~MappedFile();

  static absl::StatusOr<MappedFile> Open(const std::string& path);
  absl::string_view bytes() const { return bytes_; }

 private:
  absl::string_view bytes_;
};

// A file that appears under its name only when Commit succeeds: written beside its place, synced,
// renamed, and the folder synced. Without a Commit, or after an error, the temporary is removed and
// the old file, if there was one, is as before. A symbolic link stays one: the file that it leads
// to is replaced, and keeps its permissions. What is no regular file (a pipe, a device,
// /dev/stdout) is written straight.
class AtomicFile {
 public:
  AtomicFile(AtomicFile&& other) noexcept;
  AtomicFile& operator=(AtomicFile&&) = delete;
  ~AtomicFile();

  static absl::StatusOr<AtomicFile> Create(const std::string& path);
  absl::Status Append(absl::string_view bytes);
  absl::Status Commit();

 private:
  AtomicFile(std::string path, std::string temporary, int descriptor);
  std::string path_, temporary_;  // no temporary: written straight
  int descriptor_;
};

absl::Status AtomicWrite(const std::string& path, absl::string_view bytes);

// Whether a file can be made or replaced at `path`: the error that AtomicWrite would give, before
// the work whose result is to be written there. Leaves nothing behind.
absl::Status CheckWritable(const std::string& path);

// What stands at a path, links followed; an error where that cannot be known.
enum class PathKind : uint8_t { kNothing, kFile, kFolder, kOther };
absl::StatusOr<PathKind> KindOf(const std::string& path);

// The names in a folder, sorted.
absl::StatusOr<std::vector<std::string>> NamesIn(const std::string& path);

// Creates `path` and its parents; an existing folder is no error.
absl::Status MakeDirectories(const std::string& path);

// Creates the folder `path`, which must not be there: kAlreadyExists if it is, so that of two
// processes one has made it. Its parents are made as needed.
absl::Status MakeNewDirectory(const std::string& path);

// The right to write in a folder, held until the object goes or the process ends, however it ends.
class FolderLock {
 public:
  FolderLock() = default;
  FolderLock(FolderLock&& other) noexcept;
  FolderLock& operator=(FolderLock&& other) noexcept;
  ~FolderLock();

  // kAborted, naming the process, if another one holds it. A file system that knows no locks is
  // told through `warning`, which is left empty otherwise.
  static absl::StatusOr<FolderLock> Take(const std::string& folder, std::string* warning);
  static constexpr char kName[] = ".lock";  // of the file in the folder that carries the lock

 private:
  int descriptor_ = -1;
};

// Makes the entries of a folder durable: a rename is on the disk only after this.
absl::Status SyncDirectory(const std::string& path);

// Writes all of `bytes` at the descriptor's position, through interruptions and short writes.
// `path` is for the message.
absl::Status WriteAll(int descriptor, absl::string_view bytes, const std::string& path);

}  // namespace tessera

#endif  // TESSERA_IO_FILES_H_
