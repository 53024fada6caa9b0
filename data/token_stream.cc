#include "data/token_stream.h"

#include <cstring>
#include <utility>

#include "core/check.h"

namespace tessera {
namespace {

template <class Id>
void Widen(const char* from, int64_t count, int32_t* ids) {
  for (int64_t i = 0; i < count; ++i) {
    Id id;
    std::memcpy(&id, from + i * static_cast<int64_t>(sizeof(Id)), sizeof(Id));
    ids[i] = static_cast<int32_t>(id);
  }
}

}  // namespace

TokenStream TokenStream::OfFile(MappedFile file, Width width, int64_t offset_bytes, int64_t count,
                                std::span<const int64_t> document_begins) {
  TokenStream stream;
  TESSERA_CHECK(offset_bytes + count * static_cast<int64_t>(width) <=
                    static_cast<int64_t>(file.bytes().size()),
                "%ld tokens from byte %ld on in %zu bytes", count, offset_bytes,
                file.bytes().size());
  stream.file_ = std::move(file);
  stream.width_ = width;
  stream.offset_bytes_ = offset_bytes;
  stream.size_ = count;
  stream.begins_in_file_ = document_begins;
  return stream;
}

void TokenStream::Read(int64_t begin, int64_t count, int32_t* ids) const {
  TESSERA_CHECK(begin >= 0 && count >= 0 && begin + count <= size_, "tokens %ld + %ld of %ld",
                begin, count, size_);
  const char* from = file_.bytes().data() + offset_bytes_ + begin * static_cast<int64_t>(width_);
  switch (width_) {
    case Width::k8:
      return Widen<uint8_t>(from, count, ids);
    case Width::k16:
      return Widen<uint16_t>(from, count, ids);
    case Width::k32:
      return Widen<uint32_t>(from, count, ids);
  }
}

}  // namespace tessera
