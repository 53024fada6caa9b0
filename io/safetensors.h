#ifndef TESSERA_IO_SAFETENSORS_H_
#define TESSERA_IO_SAFETENSORS_H_

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "core/dtype.h"
#include "io/files.h"

namespace tessera {

// A named array, owned by someone else. In a file of another writer `data` may be unaligned: copy
// it, do not cast it.
struct TensorView {
  std::string name;
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;
  const void* data = nullptr;
  int64_t bytes = 0;  // product of the shape times SizeOf(dtype)
};

// The safetensors format: a length, a JSON header, the data. Read strictly: besides what the format
// demands (sizes that agree, offsets without holes or overlap, nothing after the data), repeated
// keys, unknown keys, more than 8 dimensions, names over 512 bytes or with control characters are
// refused, so that no two readers can see two different files in it. Values are not looked at.
class SafetensorsFile {
 public:
  // Types other than those of DType are an error that names them.
  static absl::StatusOr<SafetensorsFile> Open(const std::string& path);

  // By name; the data stays valid as long as this object (moves included).
  std::span<const TensorView> tensors() const { return tensors_; }
  const TensorView* Find(absl::string_view name) const;  // null if absent
  const std::map<std::string, std::string>& metadata() const { return metadata_; }

 private:
  MappedFile file_;
  std::vector<TensorView> tensors_;
  std::map<std::string, std::string> metadata_;
};

// Writes the file whole or not at all: by falling alignment, then by name, data from a multiple of
// 8 bytes on. Names must differ.
absl::Status WriteSafetensors(const std::string& path, std::span<const TensorView> tensors,
                              const std::map<std::string, std::string>& metadata = {});

}  // namespace tessera

#endif  // TESSERA_IO_SAFETENSORS_H_
