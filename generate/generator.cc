#include "generate/generator.h"

#include <chrono>

#include "arch/cost.h"
#include "kernels/device/memory.h"

namespace tessera {
namespace {

using Clock = std::chrono::steady_clock;

double Since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// Calls of the model after its state.
class Reader {
 public:
  Reader(Context& ctx, const Model& model, int64_t capacity)
      : ctx_(ctx), model_(model), state_(model.NewState(1, capacity)) {}

  // The logits of the last token.
  Tensor Advance(std::span<const int32_t> tokens) {
    const int64_t T = static_cast<int64_t>(tokens.size());
    const Tensor in = ctx_.New({1, T}, DType::kI32);
    ctx_.position = ctx_.New({1, T}, DType::kI32);
    Upload(ctx_.device(), in.raw(), tokens.data(), in.bytes());
    Upload(ctx_.device(), ctx_.position.raw(), state_.NextPositions(T).data(), in.bytes());
    Tensor logits;
    const auto work = [&] {
      logits = model_.LastLogits(ctx_, model_.Hidden(ctx_, in, &state_)).value();
    };
    // The first calls are not recorded: kernels take memory that they keep.
    if (calls_++ < 2)
      work();
    else
      RunAsGraph(ctx_.device(), &graph_, work);
    return logits;
  }
  int64_t state_bytes() const { return state_.bytes(); }

 private:
  Context& ctx_;
  const Model& model_;
  ModelState state_;
  int64_t calls_ = 0;
  std::unique_ptr<CudaDevice::Graph> graph_;
};

int32_t Draw(Device device, const Tensor& logits, const Sampling& sampling, uint64_t index) {
  return ByDType(logits.dtype(), [&](auto tag) {
    std::vector<decltype(tag)> row(static_cast<size_t>(logits.dim(-1)));
    Download(device, row.data(), logits.raw(), logits.bytes());
    return Sample(std::vector<float>(row.begin(), row.end()), sampling, index);
  });
}

// The memory of a whole generation: each call on the meta device, since new states are made before
// old ones go and so the holes they leave differ from step to step.
PassMemory PeakMemory(const Model& model, int64_t prompt, int64_t tokens, DType compute) {
  return MeasureMemory(compute, [&](Context& ctx) {
    Reader reader(ctx, model, prompt + tokens);
    const std::vector<int32_t> any(static_cast<size_t>(prompt));
    reader.Advance(any);
    for (int64_t i = 1; i < tokens; ++i) reader.Advance(std::span(any).first(1));
  });
}

}  // namespace

Generation Generate(const Model& model, Device device, std::span<const int32_t> prompt,
                    int64_t tokens, const Sampling& sampling, DType compute,
                    const std::function<bool(int32_t)>& on_token) {
  const int64_t prompt_tokens = static_cast<int64_t>(prompt.size());
  Arena arena(MemoryOf(device, PeakMemory(model, prompt_tokens, tokens, compute)));
  Context ctx(device, &arena);
  ctx.compute = compute;
  Generation g{.prompt_tokens = prompt_tokens};
  if (tokens <= 0) return g;
  Reader reader(ctx, model, prompt_tokens + tokens);
  auto start = Clock::now();
  int32_t next = Draw(device, reader.Advance(prompt), sampling, 0);
  g.prefill_seconds = Since(start);
  g.tokens.push_back(next);
  bool go = on_token(next);
  start = Clock::now();
  while (go && static_cast<int64_t>(g.tokens.size()) < tokens) {
    next = Draw(device, reader.Advance(std::span(&next, 1)), sampling, g.tokens.size());
    g.tokens.push_back(next);
    ++g.decoded_tokens;
    go = on_token(next);
  }
  g.decode_seconds = Since(start);
  g.state_bytes = reader.state_bytes();
  return g;
}

}  // namespace tessera
