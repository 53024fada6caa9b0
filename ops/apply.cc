#include "ops/apply.h"

#include <algorithm>

namespace tessera::internal {
namespace {

std::string Text(Dims dims) { return Shape(dims).ToString(); }

}  // namespace

Shape ShapeOf(Dims dims) { return Shape(dims); }

void CheckTensor(const char* op, const char* name, const Tensor& t, Dims want, DType dtype,
                 unsigned use) {
  const Shape shape(want);
  const int64_t columns = shape[-1];
  TESSERA_CHECK(t.dtype() == dtype && t.elements() == shape.elements() &&
                    (t.shape().rank() == 0 ? 1 : t.dim(-1)) == columns,
                "%s takes %s as %s %s, not as %s %s", op, name, Name(dtype), Text(want).c_str(),
                Name(t.dtype()), t.shape().ToString().c_str());
  TESSERA_CHECK(
      (use & kDense) == 0 || t.contiguous(),
      "%s takes tensors without gaps, and its %s of %s is part of a wider one, with rows %ld "
      "apart",
      op, name, t.shape().ToString().c_str(), t.stride());
}

bool Bind::Present(const char* name, const Tensor& t, unsigned use) const {
  TESSERA_CHECK(t.defined() || (use & kOptional) != 0, "%s needs %s", op_, name);
  return t.defined();
}

void Bind::Finish() const {
  TESSERA_CHECK(in_ == inputs_.size() && index_ == indices_.size() && outputs.size() == wanted_,
                "%s takes %zu inputs and %zu indices and has %zu outputs, not %zu, %zu and %zu",
                op_, in_, index_, outputs.size(), inputs_.size(), indices_.size(), wanted_);
}

}  // namespace tessera::internal
