#include "core/tensor.h"

#include <algorithm>

#include "core/sizes.h"

namespace tessera {
namespace {

int64_t BytesOf(const Shape& shape, DType dtype) {
  int64_t bytes = SizeOf(dtype);
  for (int i = 0; i < shape.rank(); ++i) {
    TESSERA_CHECK(shape[i] >= 0, "a tensor of %s", shape.ToString().c_str());
    bytes = CheckedProduct({bytes, shape[i]}, kMaxTensorBytes);
    if (bytes > kMaxTensorBytes)
      throw SizeError("a tensor of " + shape.ToString() +
                      " is larger than any memory; use a smaller batch, sequence or width");
  }
  return bytes;
}

}  // namespace

Shape::Shape(std::initializer_list<int64_t> sizes) : rank_(static_cast<int>(sizes.size())) {
  TESSERA_CHECK(sizes.size() <= sizes_.size(), "rank %d is above 6", rank_);
  std::copy(sizes.begin(), sizes.end(), sizes_.begin());
}

int64_t Shape::elements() const {
  int64_t n = 1;
  for (int i = 0; i < rank_; ++i) n *= sizes_[static_cast<size_t>(i)];
  return n;
}

bool Shape::operator==(const Shape& o) const {
  return rank_ == o.rank_ && std::equal(sizes_.begin(), sizes_.begin() + rank_, o.sizes_.begin());
}

std::string Shape::ToString() const {
  std::string s = "[";
  for (int i = 0; i < rank_; ++i) s += (i == 0 ? "" : ",") + std::to_string((*this)[i]);
  return s + "]";
}

Tensor::Tensor(Arena* arena, const Shape& shape, DType dtype)
    : storage_(std::make_shared<Storage>(arena, BytesOf(shape, dtype))),
      shape_(shape),
      stride_(shape.rank() == 0 ? 1 : shape[-1]),
      dtype_(dtype),
      defined_(true) {}

Tensor Tensor::Borrow(void* data, const Shape& shape, int64_t row_stride, DType dtype,
                      std::shared_ptr<void> owner) {
  BytesOf(shape, dtype);
  TESSERA_CHECK(data != nullptr &&
                    reinterpret_cast<uintptr_t>(data) % static_cast<size_t>(SizeOf(dtype)) == 0 &&
                    row_stride >= (shape.rank() == 0 ? 1 : shape[-1]),
                "%s %s borrowed at %p, rows %ld apart", Name(dtype), shape.ToString().c_str(), data,
                row_stride);
  Tensor t;
  t.storage_ = std::make_shared<Storage>(data, std::move(owner));
  t.shape_ = shape;
  t.stride_ = row_stride;
  t.dtype_ = dtype;
  t.defined_ = true;
  return t;
}

Tensor Tensor::Slice(int64_t begin, int64_t width) const {
  TESSERA_CHECK(begin >= 0 && width >= 0 && begin + width <= dim(-1), "columns [%ld, %ld) of %s",
                begin, begin + width, shape_.ToString().c_str());
  Tensor t = *this;
  t.offset_ += begin * SizeOf(dtype_);
  t.shape_.Set(-1, width);
  return t;
}

Tensor Tensor::Reshape(const Shape& shape) const {
  TESSERA_CHECK(shape.elements() == elements() &&
                    (contiguous() || (shape.rank() > 0 && shape[-1] == dim(-1))),
                "%s (rows %ld apart) as %s", shape_.ToString().c_str(), stride_,
                shape.ToString().c_str());
  Tensor t = *this;
  t.shape_ = shape;
  if (contiguous()) t.stride_ = shape.rank() == 0 ? 1 : shape[-1];
  return t;
}

Tensor Tensor::operator[](int64_t i) const {
  TESSERA_CHECK(shape_.rank() >= 2 && i >= 0 && i < dim(0), "entry %ld of %s", i,
                shape_.ToString().c_str());
  Tensor t = *this;
  Shape rest;
  switch (shape_.rank()) {
    case 2:
      rest = {dim(1)};
      break;
    case 3:
      rest = {dim(1), dim(2)};
      break;
    case 4:
      rest = {dim(1), dim(2), dim(3)};
      break;
    default:
      rest = {dim(1), dim(2), dim(3), dim(4)};
      break;
  }
  TESSERA_CHECK(shape_.rank() <= 5, "entry of a tensor of rank %d", shape_.rank());
  t.shape_ = rest;
  const int64_t rows_per_entry = rows() / dim(0);
  t.offset_ += i * rows_per_entry * stride_ * SizeOf(dtype_);
  return t;
}

}  // namespace tessera
