#include "generate/generator.h"

#include <chrono>

#include "arch/cost.h"

namespace tessera {
namespace {

using Clock = std::chrono::steady_clock;

double Since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// One call of the model on `tokens` after the state: the logits of the last token.
Tensor Advance(Context& ctx, const Model& model, std::span<const int32_t> tokens,
               ModelState* state) {
  const int64_t T = static_cast<int64_t>(tokens.size());
  Tensor in = ctx.New({1, T}, DType::kI32);
  if (in.raw() != nullptr) std::copy(tokens.begin(), tokens.end(), in.data<int32_t>());
  return model.LastLogits(ctx, model.Hidden(ctx, in, state)).value();
}

int32_t Draw(const Tensor& logits, const Sampling& sampling, uint64_t index) {
  std::vector<float> row(static_cast<size_t>(logits.dim(-1)));
  for (size_t i = 0; i < row.size(); ++i)
    row[i] = logits.dtype() == DType::kF32 ? logits.data<float>()[i]
                                           : static_cast<float>(logits.data<bf16>()[i]);
  return Sample(row, sampling, index);
}

// The memory of a whole generation: each call on the meta device, since new states are made before
// old ones go and so the holes they leave differ from step to step.
int64_t PeakBytes(const Model& model, int64_t prompt, int64_t tokens, DType compute) {
  return PassBytes(compute, [&](Context& ctx) {
    ModelState state = model.NewState(1, prompt + tokens);
    const std::vector<int32_t> any(static_cast<size_t>(prompt));
    Advance(ctx, model, any, &state);
    for (int64_t i = 1; i < tokens; ++i) Advance(ctx, model, std::span(any).first(1), &state);
  });
}

}  // namespace

Generation Generate(const Model& model, std::span<const int32_t> prompt, int64_t tokens,
                    const Sampling& sampling, DType compute,
                    const std::function<bool(int32_t)>& on_token) {
  const int64_t prompt_tokens = static_cast<int64_t>(prompt.size());
  const int64_t capacity = prompt_tokens + tokens;
  Arena arena(Arena::Backing::kMemory, PeakBytes(model, prompt_tokens, tokens, compute));
  Context ctx(Device::kCpu, &arena);
  ctx.compute = compute;
  Generation g{.prompt_tokens = prompt_tokens};
  if (tokens <= 0) return g;
  ModelState state = model.NewState(1, capacity);
  auto start = Clock::now();
  int32_t next = Draw(Advance(ctx, model, prompt, &state), sampling, 0);
  g.prefill_seconds = Since(start);
  g.tokens.push_back(next);
  bool go = on_token(next);
  start = Clock::now();
  while (go && static_cast<int64_t>(g.tokens.size()) < tokens) {
    next = Draw(Advance(ctx, model, std::span(&next, 1), &state), sampling, g.tokens.size());
    g.tokens.push_back(next);
    ++g.decoded_tokens;
    go = on_token(next);
  }
  g.decode_seconds = Since(start);
  g.state_bytes = state.bytes();
  return g;
}

}  // namespace tessera
