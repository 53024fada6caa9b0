#ifndef TESSERA_OPS_SEQUENCE_H_
#define TESSERA_OPS_SEQUENCE_H_

#include "ops/context.h"

// Where documents begin and end. As all ops: see ops/ops.h.

namespace tessera {

// position [B,T] int32, which counts each document's tokens from 0 over chunks -> Context::start.
Tensor DocumentStarts(Context& ctx, const Tensor& position);

// Context::start [B,T] -> the row of this chunk behind the last token of each token's document.
Tensor DocumentEnds(Context& ctx, const Tensor& start);

// ctx.start, for an op over time of x [B,T,...]; undefined where that is.
Tensor StartFor(const Context& ctx, const Tensor& x);
// The ends that belong to it, for an op that looks ahead.
Tensor EndFor(Context& ctx, const Tensor& x);

// Of positions [B,T], those of `count` tokens from row `first` on, every `step`-th, counted in
// groups of `divisor` tokens: [B,count].
struct PositionSteps {
  int64_t first = 0, count, step = 1, divisor = 1;
};
Tensor Positions(Context& ctx, const Tensor& position, const PositionSteps& steps);

// first, first + 1, ... for each of B sequences: [B,count].
Tensor Count(Context& ctx, int64_t B, int64_t count, int64_t first);

// For the life of the object the context's sequences are others: layers inside of a layer that run
// on fewer tokens, or on pieces of a sequence.
class OtherSequence {
 public:
  OtherSequence(Context& ctx, const Tensor& position, const Tensor& start)
      : ctx_(ctx), position_(ctx.position), start_(ctx.start) {
    ctx.position = position;
    ctx.start = start;
  }
  ~OtherSequence() {
    ctx_.position = position_;
    ctx_.start = start_;
  }
  OtherSequence(const OtherSequence&) = delete;
  OtherSequence& operator=(const OtherSequence&) = delete;

 private:
  Context& ctx_;
  Tensor position_, start_;
};

}  // namespace tessera

#endif  // TESSERA_OPS_SEQUENCE_H_
