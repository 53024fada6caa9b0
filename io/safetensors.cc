#include "io/safetensors.h"

#include <algorithm>
#include <cstring>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "core/check.h"
#include "core/status.h"
#include "data/tokenizer.h"
#include "io/json.h"

namespace tessera {
namespace {

constexpr int64_t kLength_bytes = 8, kMaxHeader_bytes = 100'000'000;
constexpr int64_t kMaxTensors = 1'000'000, kMaxRank = 8, kMaxName_bytes = 512;
constexpr int64_t kMaxSize =
    (int64_t{1} << 48) - 1;  // of a dimension or offset, as the format has it
constexpr char kMetadata[] = "__metadata__";

constexpr std::pair<const char*, DType> kTypes[] = {{"F32", DType::kF32}, {"BF16", DType::kBF16},
                                                    {"F16", DType::kF16}, {"I32", DType::kI32},
                                                    {"I64", DType::kI64}, {"U8", DType::kU8}};

absl::Status Bad(absl::string_view where, absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat(where, ": ", what));
}

// A tensor's place behind the header.
struct Entry {
  TensorView view;
  int64_t begin, end;
};

absl::StatusOr<DType> ParseType(const std::string& name, absl::string_view where) {
  std::vector<absl::string_view> known;
  for (const auto& [type_name, type] : kTypes) {
    if (name == type_name) return type;
    known.push_back(type_name);
  }
  return Bad(where, absl::StrCat("dtype ", Quote(name), " is not supported (",
                                 absl::StrJoin(known, ", "), ")"));
}

absl::Status CheckName(absl::string_view name, absl::string_view path) {
  const bool plain = std::none_of(
      name.begin(), name.end(), [](char c) { return static_cast<uint8_t>(c) < 0x20 || c == 0x7f; });
  if (plain && !name.empty() && static_cast<int64_t>(name.size()) <= kMaxName_bytes)
    return absl::OkStatus();
  return Bad(path,
             absl::StrCat("the tensor name ", Quote(name), " has ", name.size(), " bytes; 1 to ",
                          kMaxName_bytes, " without control characters are expected"));
}

absl::StatusOr<std::vector<int64_t>> ReadSizes(const nlohmann::json& object, absl::string_view key,
                                               absl::string_view where) {
  TESSERA_ASSIGN_OR_RETURN(const nlohmann::json* array, GetArray(object, key, where));
  std::vector<int64_t> sizes;
  if (static_cast<int64_t>(array->size()) > kMaxRank)
    return Bad(where, absl::StrCat("'", key, "' has ", array->size(), " numbers; at most ",
                                   kMaxRank, " are read"));
  for (const nlohmann::json& value : *array) {
    TESSERA_ASSIGN_OR_RETURN(
        const int64_t size,
        ToInteger(value, absl::StrCat("a number of '", key, "'"), 0, kMaxSize, where));
    sizes.push_back(size);
  }
  return sizes;
}

// The bytes of a shape, or -1 if they are more than any file has. A size of 0 does not make an
// overflow elsewhere legal.
int64_t BytesOf(const std::vector<int64_t>& shape, DType dtype) {
  int64_t bytes = SizeOf(dtype);
  for (const int64_t size : shape)
    if (size > 0 && __builtin_mul_overflow(bytes, size, &bytes)) return -1;
  return std::find(shape.begin(), shape.end(), 0) == shape.end() ? bytes : 0;
}

absl::StatusOr<Entry> ReadEntry(const std::string& name, const nlohmann::json& object,
                                absl::string_view path) {
  TESSERA_RETURN_IF_ERROR(CheckName(name, path));
  const std::string where = absl::StrCat(path, ", tensor ", Quote(name));
  TESSERA_RETURN_IF_ERROR(CheckKeys(object, {"dtype", "shape", "data_offsets"}, where));
  TESSERA_ASSIGN_OR_RETURN(const std::string type_name, GetString(object, "dtype", where));
  TESSERA_ASSIGN_OR_RETURN(const DType dtype, ParseType(type_name, where));
  TESSERA_ASSIGN_OR_RETURN(std::vector<int64_t> shape, ReadSizes(object, "shape", where));
  TESSERA_ASSIGN_OR_RETURN(const std::vector<int64_t> offsets,
                           ReadSizes(object, "data_offsets", where));
  if (offsets.size() != 2)
    return Bad(where,
               absl::StrCat("'data_offsets' has ", offsets.size(), " numbers; 2 are expected"));
  const int64_t bytes = BytesOf(shape, dtype);
  if (bytes < 0)
    return Bad(where, absl::StrCat("the shape [", absl::StrJoin(shape, ", "),
                                   "] has more bytes than can be counted"));
  if (offsets[1] - offsets[0] != bytes)
    return Bad(where, absl::StrCat("data_offsets [", offsets[0], ", ", offsets[1], "] hold ",
                                   offsets[1] - offsets[0], " bytes, but ", type_name, " [",
                                   absl::StrJoin(shape, ", "), "] has ", bytes));
  return Entry{.view = {.name = name, .dtype = dtype, .shape = std::move(shape), .bytes = bytes},
               .begin = offsets[0],
               .end = offsets[1]};
}

// The JSON text between the length and the data.
absl::StatusOr<absl::string_view> HeaderOf(absl::string_view file, absl::string_view path) {
  const int64_t size = static_cast<int64_t>(file.size());
  if (size < kLength_bytes)
    return Bad(path, absl::StrCat("the file has ", size, " bytes; a safetensors file has at least ",
                                  kLength_bytes));
  uint64_t length;
  std::memcpy(&length, file.data(), sizeof(length));
  if (length > static_cast<uint64_t>(kMaxHeader_bytes))
    return Bad(path, absl::StrCat("the header says it has ", length, " bytes; at most ",
                                  kMaxHeader_bytes, " are possible"));
  if (static_cast<int64_t>(length) > size - kLength_bytes)
    return Bad(path,
               absl::StrCat("the header says it has ", length, " bytes, but the file has ", size));
  const absl::string_view header = file.substr(kLength_bytes, length);
  if (header.empty() || header[0] != '{') return Bad(path, "the header does not begin with '{'");
  return header;
}

// In the order of their data: the first at 0, each where the one before ended, the last at the end.
absl::Status CheckTiling(std::vector<Entry>& entries, int64_t data_bytes, absl::string_view path) {
  std::sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) {
    return std::tie(a.begin, a.end, a.view.name) < std::tie(b.begin, b.end, b.view.name);
  });
  int64_t end = 0;
  for (const Entry& entry : entries) {
    if (entry.begin != end)
      return Bad(path, absl::StrCat("the tensor ", Quote(entry.view.name), " begins at ",
                                    entry.begin, ", but the one before ends at ", end));
    end = entry.end;
  }
  if (end != data_bytes)
    return Bad(path, absl::StrCat("the tensors have ", end, " bytes, but behind the header are ",
                                  data_bytes, "; the file is cut or has something appended"));
  return absl::OkStatus();
}

absl::Status ReadMetadata(const nlohmann::json& object, absl::string_view path,
                          std::map<std::string, std::string>& metadata) {
  const std::string where = absl::StrCat(path, ", ", kMetadata);
  if (!object.is_object())
    return Bad(where, absl::StrCat("an object is expected, not ", Describe(object)));
  for (const auto& [key, value] : object.items()) {
    TESSERA_ASSIGN_OR_RETURN(metadata[key], GetString(object, key, where));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<SafetensorsFile> SafetensorsFile::Open(const std::string& path) {
  SafetensorsFile result;
  TESSERA_ASSIGN_OR_RETURN(result.file_, MappedFile::Open(path));
  const absl::string_view file = result.file_.bytes();
  TESSERA_ASSIGN_OR_RETURN(const absl::string_view header, HeaderOf(file, path));
  TESSERA_ASSIGN_OR_RETURN(const nlohmann::json json, ParseJson(header, path, 4));
  if (static_cast<int64_t>(json.size()) > kMaxTensors)
    return Bad(path, absl::StrCat(json.size(), " tensors; at most ", kMaxTensors, " are read"));
  std::vector<Entry> entries;
  for (const auto& [name, object] : json.items()) {
    if (name == kMetadata) {
      TESSERA_RETURN_IF_ERROR(ReadMetadata(object, path, result.metadata_));
      continue;
    }
    TESSERA_ASSIGN_OR_RETURN(Entry entry, ReadEntry(name, object, path));
    entries.push_back(std::move(entry));
  }
  const absl::string_view data = file.substr(kLength_bytes + header.size());
  TESSERA_RETURN_IF_ERROR(CheckTiling(entries, static_cast<int64_t>(data.size()), path));
  for (Entry& entry : entries) {
    entry.view.data = data.data() + entry.begin;
    result.tensors_.push_back(std::move(entry.view));
  }
  std::sort(result.tensors_.begin(), result.tensors_.end(),
            [](const TensorView& a, const TensorView& b) { return a.name < b.name; });
  return result;
}

const TensorView* SafetensorsFile::Find(absl::string_view name) const {
  const auto found = std::lower_bound(
      tensors_.begin(), tensors_.end(), name,
      [](const TensorView& tensor, absl::string_view wanted) { return tensor.name < wanted; });
  return found == tensors_.end() || found->name != name ? nullptr : &*found;
}

absl::Status WriteSafetensors(const std::string& path, std::span<const TensorView> tensors,
                              const std::map<std::string, std::string>& metadata) {
  std::vector<const TensorView*> order;
  for (const TensorView& tensor : tensors) order.push_back(&tensor);
  std::sort(order.begin(), order.end(), [](const TensorView* a, const TensorView* b) {
    const int64_t alignment_a = SizeOf(a->dtype), alignment_b = SizeOf(b->dtype);
    return std::tie(alignment_b, a->name) < std::tie(alignment_a, b->name);
  });
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  if (!metadata.empty()) header[kMetadata] = metadata;
  int64_t offset = 0;
  for (const TensorView* tensor : order) {
    TESSERA_CHECK(CheckName(tensor->name, path).ok() && tensor->name != kMetadata &&
                      ValidUtf8Prefix(tensor->name) == static_cast<int64_t>(tensor->name.size()),
                  "tensor name '%s'", tensor->name.c_str());
    TESSERA_CHECK(!header.contains(tensor->name), "tensor '%s' twice", tensor->name.c_str());
    TESSERA_CHECK(tensor->bytes == BytesOf(tensor->shape, tensor->dtype),
                  "tensor '%s' has %ld bytes", tensor->name.c_str(), tensor->bytes);
    const auto is_type = [&](const auto& type) { return type.second == tensor->dtype; };
    header[tensor->name] = {
        {"dtype", std::find_if(std::begin(kTypes), std::end(kTypes), is_type)->first},
        {"shape", tensor->shape},
        {"data_offsets", {offset, offset + tensor->bytes}}};
    offset += tensor->bytes;
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');
  const uint64_t length = text.size();
  TESSERA_ASSIGN_OR_RETURN(AtomicFile file, AtomicFile::Create(path));
  TESSERA_RETURN_IF_ERROR(
      file.Append(absl::string_view(reinterpret_cast<const char*>(&length), sizeof(length))));
  TESSERA_RETURN_IF_ERROR(file.Append(text));
  for (const TensorView* tensor : order)
    TESSERA_RETURN_IF_ERROR(file.Append(absl::string_view(static_cast<const char*>(tensor->data),
                                                          static_cast<size_t>(tensor->bytes))));
  return file.Commit();
}

}  // namespace tessera
