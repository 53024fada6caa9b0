#ifndef TESSERA_OPS_GRAD_NODE_H_
#define TESSERA_OPS_GRAD_NODE_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "core/tensor.h"

// The gradient's side of a Var (ops/context.h), and which of its columns have had a contribution.

namespace tessera {

// Columns [begin, end) of every row.
struct ColumnRange {
  int64_t begin, end;
  bool empty() const { return begin >= end; }
  bool Overlaps(const ColumnRange& o) const {
    return begin < o.end && o.begin < end && !empty() && !o.empty();
  }
};

// Closures on the tape that need no value hold only this, so that the value's memory goes.
struct GradNode {
  Shape shape;
  DType dtype = DType::kF32;
  // A view of columns of another gradient, the whole, which is no view itself (Split): where it
  // begins there. What follows is the whole's to keep, since parts may overlap and the whole may be
  // contributed to before and after them.
  std::shared_ptr<GradNode> whole;
  int64_t begin = 0;

  Tensor grad;                       // undefined until something contributes
  bool borrowed = false;             // grad is the caller's, and read only
  bool started = false;              // something has contributed to every column
  std::vector<ColumnRange> columns;  // until then: the columns so far, in order and apart

  // Columns in [range] that nothing has contributed to, in order.
  std::vector<ColumnRange> Untouched(const ColumnRange& range) const;
  void Touch(const ColumnRange& range);
  // As before any contribution; the memory stays.
  void Forget() {
    started = false;
    columns.clear();
  }

  GradNode& Whole() { return whole != nullptr ? *whole : *this; }
  // Where it lies in the whole.
  ColumnRange Range() const { return {begin, begin + (shape.rank() == 0 ? 1 : shape[-1])}; }
};
using GradRef = std::shared_ptr<GradNode>;  // null: no gradient wanted

// A view of columns of a gradient, or of such a view; null of null.
GradRef ViewOf(const GradRef& ref, int64_t begin, int64_t width);

}  // namespace tessera

#endif  // TESSERA_OPS_GRAD_NODE_H_
