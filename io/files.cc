#include "io/files.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "core/check.h"
#include "core/status.h"

namespace tessera {
namespace {

// Closes on every way out of a function.
class Descriptor {
 public:
  explicit Descriptor(int value) : value_(value) {}
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  ~Descriptor() {
    if (value_ >= 0) close(value_);
  }
  int value() const { return value_; }

 private:
  int value_;
};

std::string Parent(const std::string& path) {
  const std::string parent = std::filesystem::path(path).parent_path().string();
  return parent.empty() ? "." : parent;
}

// The size of an open regular file; anything else (a folder, a pipe) is an error that says so.
absl::StatusOr<int64_t> RegularFileBytes(int descriptor, const std::string& path) {
  struct stat info;
  if (fstat(descriptor, &info) != 0) return FileError("cannot inspect", path, errno);
  if (S_ISDIR(info.st_mode))
    return absl::InvalidArgumentError(absl::StrCat(path, " is a folder; a file is expected"));
  if (!S_ISREG(info.st_mode))
    return absl::InvalidArgumentError(
        absl::StrCat(path, " is not a regular file; a pipe or device cannot be used here"));
  return static_cast<int64_t>(info.st_size);
}

int OpenToRead(const std::string& path) {
  return open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
}

}  // namespace

absl::Status FileError(absl::string_view action, absl::string_view path, int error_number) {
  const char* name = strerrorname_np(error_number);
  const std::string message = absl::StrCat(action, " ", path, ": ", strerrordesc_np(error_number),
                                           " (", name == nullptr ? "unknown" : name, ")");
  switch (error_number) {
    case ENOENT:
      return absl::NotFoundError(message);
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
      return absl::ResourceExhaustedError(message);
    case EACCES:
    case EPERM:
    case EROFS:
      return absl::PermissionDeniedError(message);
    default:
      return absl::FailedPreconditionError(message);
  }
}

absl::StatusOr<std::string> ReadFile(const std::string& path, int64_t max_bytes) {
  const Descriptor file(OpenToRead(path));
  if (file.value() < 0) return FileError("cannot open", path, errno);
  TESSERA_ASSIGN_OR_RETURN(const int64_t size, RegularFileBytes(file.value(), path));
  if (size > max_bytes)
    return absl::InvalidArgumentError(
        absl::StrCat(path, " has ", size, " bytes; at most ", max_bytes, " are read here"));
  std::string bytes(static_cast<size_t>(size), '\0');
  size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t n = read(file.value(), bytes.data() + done, bytes.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return FileError("cannot read", path, errno);
    if (n == 0)
      return absl::DataLossError(
          absl::StrCat(path, " became shorter while it was read: ", done, " of ", size, " bytes"));
    done += static_cast<size_t>(n);
  }
  return bytes;
}

MappedFile::MappedFile(MappedFile&& other) noexcept : bytes_(std::exchange(other.bytes_, {})) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(bytes_, other.bytes_);
  return *this;
}

MappedFile::~MappedFile() {
  if (!bytes_.empty()) munmap(const_cast<char*>(bytes_.data()), bytes_.size());
}

absl::StatusOr<MappedFile> MappedFile::Open(const std::string& path) {
  const Descriptor file(OpenToRead(path));
  if (file.value() < 0) return FileError("cannot open", path, errno);
  TESSERA_ASSIGN_OR_RETURN(const int64_t size, RegularFileBytes(file.value(), path));
  MappedFile result;
  if (size == 0) return result;
  void* address = mmap(nullptr, static_cast<size_t>(size), PROT_READ, MAP_PRIVATE, file.value(), 0);
  if (address == MAP_FAILED) return FileError("cannot map", path, errno);
  result.bytes_ = absl::string_view(static_cast<const char*>(address), static_cast<size_t>(size));
  return result;
}

absl::Status WriteAll(int descriptor, absl::string_view bytes, const std::string& path) {
  constexpr size_t kMaxWrite_bytes = size_t{1} << 30;  // the kernel takes at most 2 GiB at a time
  while (!bytes.empty()) {
    const ssize_t n = write(descriptor, bytes.data(), std::min(bytes.size(), kMaxWrite_bytes));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return FileError("cannot write", path, errno);
    bytes.remove_prefix(static_cast<size_t>(n));
  }
  return absl::OkStatus();
}

AtomicFile::AtomicFile(std::string path, std::string temporary, int descriptor)
    : path_(std::move(path)), temporary_(std::move(temporary)), descriptor_(descriptor) {}

AtomicFile::AtomicFile(AtomicFile&& other) noexcept
    : path_(std::move(other.path_)),
      temporary_(std::move(other.temporary_)),
      descriptor_(std::exchange(other.descriptor_, -1)) {}

AtomicFile::~AtomicFile() {
  if (descriptor_ < 0) return;
  close(descriptor_);
  if (!temporary_.empty()) unlink(temporary_.c_str());
}

namespace {

// The descriptor that a path stands for, such as /dev/stdout; -1 if it is none.
int DescriptorNamed(const std::string& path) {
  for (const char* folder : {"/proc/self/fd/", "/dev/fd/"}) {
    int number;
    if (absl::StartsWith(path, folder) &&
        absl::SimpleAtoi(path.substr(std::strlen(folder)), &number) && number >= 0)
      return number;
  }
  return -1;
}

// Where a path leads: a descriptor of this process, or the path at the end of its links.
struct Destination {
  std::string path;
  int descriptor = -1;
};
absl::StatusOr<Destination> Follow(const std::string& path) {
  Destination d{.path = path};
  constexpr int kMostLinks = 40;  // as the kernel
  for (int links = 0; links <= kMostLinks; ++links) {
    d.descriptor = DescriptorNamed(d.path);
    if (d.descriptor >= 0) return d;
    char target[4096];
    const ssize_t n = readlink(d.path.c_str(), target, sizeof target);
    if (n < 0) return d;  // no link, or nothing there
    const std::string text(target, static_cast<size_t>(n));
    d.path = text[0] == '/' ? text : Parent(d.path) + "/" + text;
  }
  return FileError("cannot create", path, ELOOP);
}

}  // namespace

absl::StatusOr<AtomicFile> AtomicFile::Create(const std::string& path) {
  TESSERA_ASSIGN_OR_RETURN(const Destination to, Follow(path));
  const auto opened = [&](int descriptor) -> absl::StatusOr<AtomicFile> {
    if (descriptor < 0) return FileError("cannot create", path, errno);
    return AtomicFile(to.path, "", descriptor);
  };
  if (to.descriptor >= 0) return opened(fcntl(to.descriptor, F_DUPFD_CLOEXEC, 0));
  struct stat info;
  const bool exists = stat(to.path.c_str(), &info) == 0;
  if (!exists && errno != ENOENT) return FileError("cannot create", path, errno);
  if (exists && S_ISDIR(info.st_mode))
    return absl::InvalidArgumentError(absl::StrCat(path, " is a folder; a file is expected"));
  if (exists && !S_ISREG(info.st_mode)) return opened(open(to.path.c_str(), O_WRONLY | O_CLOEXEC));
  for (int n = 0;; ++n) {
    std::string temporary = absl::StrCat(to.path, ".tmp-", getpid(), n == 0 ? "" : "-");
    if (n > 0) absl::StrAppend(&temporary, n);
    const int descriptor =
        open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0666);
    if (descriptor < 0 && errno == EEXIST) continue;  // left by a process that had this number
    if (descriptor < 0) return FileError("cannot create", path, errno);
    if (exists) fchmod(descriptor, info.st_mode & 07777);
    return AtomicFile(to.path, std::move(temporary), descriptor);
  }
}

absl::Status AtomicFile::Append(absl::string_view bytes) {
  TESSERA_CHECK(descriptor_ >= 0, "%s is committed already", path_.c_str());
  return WriteAll(descriptor_, bytes, path_);
}

absl::Status AtomicFile::Commit() {
  TESSERA_CHECK(descriptor_ >= 0, "%s is committed already", path_.c_str());
  if (temporary_.empty())
    return close(std::exchange(descriptor_, -1)) == 0 ? absl::OkStatus()
                                                      : FileError("cannot write", path_, errno);
  if (fsync(descriptor_) != 0) return FileError("cannot write", path_, errno);
  const int closed = close(std::exchange(descriptor_, -1));
  if (closed != 0 || rename(temporary_.c_str(), path_.c_str()) != 0) {
    const int error_number = errno;
    unlink(temporary_.c_str());
    return FileError("cannot write", path_, error_number);
  }
  return SyncDirectory(Parent(path_));
}

absl::Status AtomicWrite(const std::string& path, absl::string_view bytes) {
  TESSERA_ASSIGN_OR_RETURN(AtomicFile file, AtomicFile::Create(path));
  TESSERA_RETURN_IF_ERROR(file.Append(bytes));
  return file.Commit();
}

absl::Status CheckWritable(const std::string& path) { return AtomicFile::Create(path).status(); }

absl::StatusOr<PathKind> KindOf(const std::string& path) {
  struct stat info;
  if (stat(path.c_str(), &info) == 0)
    return S_ISDIR(info.st_mode)   ? PathKind::kFolder
           : S_ISREG(info.st_mode) ? PathKind::kFile
                                   : PathKind::kOther;
  if (errno == ENOENT || errno == ENOTDIR) return PathKind::kNothing;
  return FileError("cannot look at", path, errno);
}

absl::StatusOr<std::vector<std::string>> NamesIn(const std::string& path) {
  std::error_code error;
  std::vector<std::string> names;
  for (std::filesystem::directory_iterator entry(path, error), end; !error && entry != end;
       entry.increment(error))
    names.push_back(entry->path().filename().string());
  if (error) return FileError("cannot read the folder", path, error.value());
  std::sort(names.begin(), names.end());
  return names;
}

absl::Status MakeNewDirectory(const std::string& path) {
  TESSERA_RETURN_IF_ERROR(MakeDirectories(Parent(path)));
  if (mkdir(path.c_str(), 0777) == 0) return absl::OkStatus();
  if (errno == EEXIST) return absl::AlreadyExistsError(absl::StrCat(path, " exists"));
  return FileError("cannot create the folder", path, errno);
}

FolderLock::FolderLock(FolderLock&& other) noexcept
    : descriptor_(std::exchange(other.descriptor_, -1)) {}

FolderLock& FolderLock::operator=(FolderLock&& other) noexcept {
  std::swap(descriptor_, other.descriptor_);
  return *this;
}

FolderLock::~FolderLock() {
  if (descriptor_ >= 0) close(descriptor_);
}

// The file says who holds the lock, for the message; whether it is held, the system knows.
absl::StatusOr<FolderLock> FolderLock::Take(const std::string& folder, std::string* warning) {
  const std::string path = absl::StrCat(folder, "/", kName);
  FolderLock lock;
  lock.descriptor_ = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666);
  if (lock.descriptor_ < 0) return FileError("cannot create", path, errno);
  char host[256] = "";
  gethostname(host, sizeof host - 1);
  if (flock(lock.descriptor_, LOCK_EX | LOCK_NB) != 0) {
    if (errno == EWOULDBLOCK) {
      char owner[512] = "";
      const ssize_t n = pread(lock.descriptor_, owner, sizeof owner - 1, 0);
      return absl::AbortedError(
          absl::StrCat(folder, " is in use by ", n > 0 ? owner : "another process",
                       "; wait until it has ended, or choose another --run directory"));
    }
    *warning = absl::StrCat(FileError("cannot lock", path, errno).message(),
                            "; nothing keeps a second process from writing there");
    return lock;
  }
  warning->clear();
  const std::string owner = absl::StrCat("process ", getpid(), " on ", host);
  if (ftruncate(lock.descriptor_, 0) != 0) return FileError("cannot write", path, errno);
  TESSERA_RETURN_IF_ERROR(WriteAll(lock.descriptor_, owner, path));
  return lock;
}

absl::Status MakeDirectories(const std::string& path) {
  std::error_code error;
  std::filesystem::create_directories(path, error);
  if (error) return FileError("cannot create the folder", path, error.value());
  return absl::OkStatus();
}

absl::Status SyncDirectory(const std::string& path) {
  const Descriptor folder(open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (folder.value() < 0) return FileError("cannot open the folder", path, errno);
  // Some file systems cannot sync a folder and say EINVAL; their renames need no such call.
  if (fsync(folder.value()) != 0 && errno != EINVAL)
    return FileError("cannot sync the folder", path, errno);
  return absl::OkStatus();
}

}  // namespace tessera
