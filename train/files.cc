#include "train/files.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <utility>

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
  unlink(temporary_.c_str());
}

absl::StatusOr<AtomicFile> AtomicFile::Create(const std::string& path) {
  std::string temporary = absl::StrCat(path, ".tmp-", getpid());
  const int descriptor =
      open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0644);
  if (descriptor < 0) return FileError("cannot create", path, errno);
  return AtomicFile(path, std::move(temporary), descriptor);
}

absl::Status AtomicFile::Append(absl::string_view bytes) {
  TESSERA_CHECK(descriptor_ >= 0, "%s is committed already", path_.c_str());
  return WriteAll(descriptor_, bytes, path_);
}

absl::Status AtomicFile::Commit() {
  TESSERA_CHECK(descriptor_ >= 0, "%s is committed already", path_.c_str());
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
