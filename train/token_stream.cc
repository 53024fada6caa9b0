#include "train/token_stream.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "core/check.h"

namespace tessera {
namespace {

template <class Id>
void Widen(const unsigned char* from, int64_t count, int32_t* ids) {
  for (int64_t i = 0; i < count; ++i) {
    Id id;
    std::memcpy(&id, from + i * static_cast<int64_t>(sizeof(Id)), sizeof(Id));
    ids[i] = static_cast<int32_t>(id);
  }
}

template <class Id>
void Narrow(const std::vector<int32_t>& ids, std::vector<unsigned char>& memory) {
  const size_t old = memory.size();
  memory.resize(old + ids.size() * sizeof(Id));
  for (size_t i = 0; i < ids.size(); ++i) {
    const Id id = static_cast<Id>(ids[i]);
    std::memcpy(memory.data() + old + i * sizeof(Id), &id, sizeof(Id));
  }
}

}  // namespace

TokenStream TokenStream::OfFile(MappedFile file, Width width, int64_t offset_bytes, int64_t count) {
  TokenStream stream;
  TESSERA_CHECK(offset_bytes + count * static_cast<int64_t>(width) <=
                    static_cast<int64_t>(file.bytes().size()),
                "%ld tokens from byte %ld on in %zu bytes", count, offset_bytes,
                file.bytes().size());
  stream.file_ = std::move(file);
  stream.width_ = width;
  stream.offset_bytes_ = offset_bytes;
  stream.size_ = count;
  return stream;
}

TokenStream TokenStream::InMemory(int64_t vocab) {
  TokenStream stream;
  stream.in_memory_ = true;
  stream.width_ = vocab <= 256 ? Width::k8 : vocab <= 65536 ? Width::k16 : Width::k32;
  return stream;
}

void TokenStream::Append(const std::vector<int32_t>& ids) {
  TESSERA_CHECK(in_memory_, "a mapped stream of %ld tokens cannot grow", size_);
  switch (width_) {
    case Width::k8:
      Narrow<uint8_t>(ids, memory_);
      break;
    case Width::k16:
      Narrow<uint16_t>(ids, memory_);
      break;
    case Width::k32:
      Narrow<uint32_t>(ids, memory_);
      break;
  }
  size_ += static_cast<int64_t>(ids.size());
}

const unsigned char* TokenStream::bytes() const {
  return in_memory_ ? memory_.data()
                    : reinterpret_cast<const unsigned char*>(file_.bytes().data()) + offset_bytes_;
}

void TokenStream::Read(int64_t begin, int64_t count, int32_t* ids) const {
  TESSERA_CHECK(begin >= 0 && count >= 0 && begin + count <= size_, "tokens %ld + %ld of %ld",
                begin, count, size_);
  const unsigned char* from = bytes() + begin * static_cast<int64_t>(width_);
  switch (width_) {
    case Width::k8:
      return Widen<uint8_t>(from, count, ids);
    case Width::k16:
      return Widen<uint16_t>(from, count, ids);
    case Width::k32:
      return Widen<uint32_t>(from, count, ids);
  }
}

int64_t TokenStream::DocumentBegin(int64_t i) const {
  const auto after = std::upper_bound(document_begins_.begin(), document_begins_.end(), i);
  return after == document_begins_.begin() ? 0 : *(after - 1);
}

}  // namespace tessera
