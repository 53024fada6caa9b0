#ifndef TESSERA_CORE_TENSOR_H_
#define TESSERA_CORE_TENSOR_H_

#include <algorithm>
#include <array>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <string>
#include <utility>

#include "core/arena.h"
#include "core/check.h"
#include "core/dtype.h"

namespace tessera {

// Up to six sizes.
class Shape {
 public:
  Shape() = default;
  Shape(std::initializer_list<int64_t> sizes);
  int rank() const { return rank_; }
  int64_t operator[](int i) const { return sizes_[Index(i)]; }  // -1 is the last
  void Set(int i, int64_t size) { sizes_[Index(i)] = size; }
  int64_t elements() const;  // 1 for rank 0
  bool operator==(const Shape& o) const;
  std::string ToString() const;  // [2,3]

 private:
  size_t Index(int i) const {
    const int k = i < 0 ? i + rank_ : i;
    TESSERA_CHECK(k >= 0 && k < rank_, "dimension %d of a tensor of rank %d", i, rank_);
    return static_cast<size_t>(k);
  }
  std::array<int64_t, 6> sizes_{};
  int rank_ = 0;
};

// A block of an arena, given back when the last tensor that looks at it goes; or memory of somebody
// else, who is let go then.
class Storage {
 public:
  Storage(Arena* arena, int64_t bytes)
      : arena_(arena),
        bytes_(bytes),
        offset_(arena->Allocate(bytes)),
        data_(static_cast<char*>(arena->At(offset_))) {}
  Storage(void* data, std::shared_ptr<void> owner)
      : data_(static_cast<char*>(data)), owner_(std::move(owner)) {}
  ~Storage() {
    if (arena_ != nullptr) arena_->Free(offset_, bytes_);
  }
  Storage(const Storage&) = delete;
  Storage& operator=(const Storage&) = delete;
  char* data() const { return data_; }

 private:
  Arena* arena_ = nullptr;
  int64_t bytes_ = 0, offset_ = 0;
  char* data_;
  std::shared_ptr<void> owner_;
};

// A typed array, or a view of one: rows of `dim(-1)` contiguous elements, `stride()` elements
// apart. A column slice of a projection is a view, so is any reshape; kernels take the stride. On
// the meta device data() is null. Copies are cheap and share the memory.
class Tensor {
 public:
  Tensor() = default;
  Tensor(Arena* arena, const Shape& shape, DType dtype);
  // Memory of the device that is not an arena's: rows of shape[-1] contiguous elements, row_stride
  // elements apart, aligned as their type. `owner` is kept as long as any tensor looks at it, and
  // keeps the memory.
  static Tensor Borrow(void* data, const Shape& shape, int64_t row_stride, DType dtype,
                       std::shared_ptr<void> owner);

  bool defined() const { return defined_; }
  const Shape& shape() const { return shape_; }
  int64_t dim(int i) const { return shape_[i]; }
  DType dtype() const { return dtype_; }
  int64_t elements() const { return shape_.elements(); }
  int64_t rows() const {
    return shape_.rank() == 0 ? 1 : elements() / std::max<int64_t>(1, dim(-1));
  }
  int64_t stride() const { return stride_; }
  bool contiguous() const { return shape_.rank() == 0 || stride_ == dim(-1) || rows() <= 1; }
  int64_t bytes() const { return elements() * SizeOf(dtype_); }

  template <class T>
  T* data() const {
    TESSERA_CHECK(!defined_ || kDTypeOf<T> == dtype_, "a tensor of %s read as %s", Name(dtype_),
                  Name(kDTypeOf<T>));
    return reinterpret_cast<T*>(raw());
  }
  char* raw() const {
    return storage_ == nullptr || storage_->data() == nullptr ? nullptr
                                                              : storage_->data() + offset_;
  }

  // Whether both were cut from one block of an arena, whichever elements they look at.
  bool SharesMemory(const Tensor& o) const { return storage_ != nullptr && storage_ == o.storage_; }

  // Columns [begin, begin + width) of every row.
  Tensor Slice(int64_t begin, int64_t width) const;
  // The same elements in another shape. A strided view keeps its last dimension.
  Tensor Reshape(const Shape& shape) const;
  // Entry i of the first dimension, without that dimension.
  Tensor operator[](int64_t i) const;

 private:
  std::shared_ptr<Storage> storage_;
  int64_t offset_ = 0;  // bytes
  Shape shape_;
  int64_t stride_ = 0;
  DType dtype_ = DType::kF32;
  bool defined_ = false;
};

// Calls f with a value of the element type of an activation: ByDType(x.dtype(), [&](auto tag) {
// using T = decltype(tag); ... }).
template <class F>
decltype(auto) ByDType(DType dtype, F&& f) {
  TESSERA_CHECK(dtype == DType::kF32 || dtype == DType::kBF16,
                "activations are fp32 or bf16, not %s", Name(dtype));
  return dtype == DType::kF32 ? f(float{}) : f(bf16{});
}

}  // namespace tessera

#endif  // TESSERA_CORE_TENSOR_H_
