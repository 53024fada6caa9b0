#include "io/tfevents.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "core/status.h"
#include "io/files.h"

namespace tessera {
namespace {

constexpr char kPrefix[] = "events.out.tfevents.", kSuffix[] = ".tessera";
constexpr char kVersion[] = "brain.Event:2";  // the first event of every file says this
constexpr size_t kLength_bytes = 8, kCrc_bytes = 4;

uint32_t MaskedCrc(absl::string_view bytes) {
  const uint32_t crc = Crc32c(bytes);
  return ((crc >> 15) | (crc << 17)) + 0xa282ead8u;
}

template <class Word>
void AppendWord(std::string& out, Word word) {
  out.append(reinterpret_cast<const char*>(&word), sizeof(word));
}

template <class Word>
Word WordAt(absl::string_view bytes, size_t at) {
  Word word;
  std::memcpy(&word, bytes.data() + at, sizeof(word));
  return word;
}

std::string Record(absl::string_view event) {
  std::string record;
  AppendWord(record, static_cast<uint64_t>(event.size()));
  AppendWord(record, MaskedCrc(record));
  record.append(event.data(), event.size());
  AppendWord(record, MaskedCrc(event));
  return record;
}

// The wire types of protobuf; a field begins with (number << 3 | type).
enum WireType : unsigned { kVarint = 0, k64Bit = 1, kBytes = 2, k32Bit = 5 };

void AppendVarint(std::string& out, uint64_t value) {
  for (; value >= 0x80; value >>= 7) out.push_back(static_cast<char>(value | 0x80));
  out.push_back(static_cast<char>(value));
}
void AppendKey(std::string& out, unsigned field, WireType type) {
  AppendVarint(out, field << 3 | type);
}
void AppendBytes(std::string& out, unsigned field, absl::string_view bytes) {
  AppendKey(out, field, kBytes);
  AppendVarint(out, bytes.size());
  out.append(bytes.data(), bytes.size());
}

// Event { double wall_time = 1; int64 step = 2; string file_version = 3; Summary summary = 5; }
std::string EventHead(double wall_time_s, int64_t step) {
  std::string event;
  AppendKey(event, 1, k64Bit);
  AppendWord(event, wall_time_s);
  AppendKey(event, 2, kVarint);
  AppendVarint(event, static_cast<uint64_t>(step));
  return event;
}

// Summary { repeated Value value = 1; }   Value { string tag = 1; float simple_value = 2; }
std::string ScalarValue(const EventWriter::Scalar& scalar) {
  std::string value;
  AppendBytes(value, 1, scalar.first);
  AppendKey(value, 2, k32Bit);
  AppendWord(value, static_cast<float>(scalar.second));
  return value;
}

// The event that a whole record at the start of `bytes` holds, or nothing where there is none.
std::optional<absl::string_view> EventAt(absl::string_view bytes) {
  constexpr size_t kAround = kLength_bytes + 2 * kCrc_bytes;
  if (bytes.size() < kAround) return std::nullopt;
  const uint64_t length = WordAt<uint64_t>(bytes, 0);
  if (length > bytes.size() - kAround) return std::nullopt;
  const absl::string_view event = bytes.substr(kLength_bytes + kCrc_bytes, length);
  const bool good =
      WordAt<uint32_t>(bytes, kLength_bytes) == MaskedCrc(bytes.substr(0, kLength_bytes)) &&
      WordAt<uint32_t>(bytes, kLength_bytes + kCrc_bytes + length) == MaskedCrc(event);
  return good ? std::optional(event) : std::nullopt;
}

// The step of an event of ours, which stands behind the 9 bytes of the wall time.
int64_t StepOf(absl::string_view event) {
  uint64_t step = 0;
  int shift = 0;
  for (size_t i = 10; i < event.size() && shift < 64; ++i, shift += 7) {
    step |= static_cast<uint64_t>(event[i] & 0x7f) << shift;
    if ((event[i] & 0x80) == 0) break;
  }
  return static_cast<int64_t>(step);
}

// The whole records before the first that is cut or belongs to `from_step` or later.
int64_t BytesToKeep(absl::string_view file, int64_t from_step) {
  size_t kept = 0;
  while (const auto event = EventAt(file.substr(kept))) {
    if (kept > 0 && StepOf(*event) >= from_step) break;  // the first event is the version
    kept += kLength_bytes + event->size() + 2 * kCrc_bytes;
  }
  return static_cast<int64_t>(kept);
}

// The name of the newest of our files in the folder, or "".
absl::StatusOr<std::string> FindFile(const std::string& folder) {
  std::error_code error;
  std::filesystem::directory_iterator entries(folder, error);
  if (error) return FileError("cannot open the folder", folder, error.value());
  std::string newest;
  for (const auto& entry : entries) {
    const std::string name = entry.path().filename().string();
    if (absl::StartsWith(name, kPrefix) && absl::EndsWith(name, kSuffix))
      newest = std::max(newest, name);
  }
  return newest;
}

double Now_s() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

}  // namespace

uint32_t Crc32c(absl::string_view bytes) {
  static constexpr std::array<uint32_t, 256> kTable = [] {
    std::array<uint32_t, 256> table{};
    for (uint32_t i = 0; i < 256; ++i) {
      uint32_t crc = i;
      for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) != 0 ? 0x82f63b78u : 0u);
      table[i] = crc;
    }
    return table;
  }();
  uint32_t crc = 0xffffffffu;
  for (const char c : bytes) crc = (crc >> 8) ^ kTable[(crc ^ static_cast<uint8_t>(c)) & 0xff];
  return ~crc;
}

EventWriter::EventWriter(std::string path, int descriptor)
    : path_(std::move(path)), descriptor_(descriptor) {}

EventWriter::EventWriter(EventWriter&& other) noexcept
    : path_(std::move(other.path_)), descriptor_(std::exchange(other.descriptor_, -1)) {}

EventWriter::~EventWriter() {
  if (descriptor_ >= 0) close(descriptor_);
}

absl::StatusOr<EventWriter> EventWriter::Open(const std::string& folder, int64_t from_step) {
  TESSERA_ASSIGN_OR_RETURN(std::string name, FindFile(folder));
  const bool is_new = name.empty();
  if (is_new) name = absl::StrCat(kPrefix, static_cast<int64_t>(Now_s()), kSuffix);
  const std::string path = absl::StrCat(folder, "/", name);
  int64_t kept_bytes = 0;
  if (!is_new) {
    TESSERA_ASSIGN_OR_RETURN(const MappedFile old, MappedFile::Open(path));
    kept_bytes = BytesToKeep(old.bytes(), from_step);
  }
  const int descriptor = open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (descriptor < 0) return FileError("cannot create", path, errno);
  EventWriter writer(path, descriptor);
  if (ftruncate(descriptor, kept_bytes) != 0) return FileError("cannot shorten", path, errno);
  if (kept_bytes == 0) {
    std::string event = EventHead(Now_s(), 0);
    AppendBytes(event, 3, kVersion);
    TESSERA_RETURN_IF_ERROR(WriteAll(descriptor, Record(event), path));
  }
  return writer;
}

absl::Status EventWriter::Write(int64_t step, double wall_time_s, std::span<const Scalar> scalars) {
  std::string summary;
  for (const Scalar& scalar : scalars) AppendBytes(summary, 1, ScalarValue(scalar));
  std::string event = EventHead(wall_time_s, step);
  AppendBytes(event, 5, summary);
  return WriteAll(descriptor_, Record(event), path_);
}

}  // namespace tessera
