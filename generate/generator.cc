#include "generate/generator.h"

#include <algorithm>
#include <chrono>

#include "absl/strings/str_cat.h"
#include "arch/cost.h"
#include "arch/tokens.h"
#include "arch/traits.h"
#include "core/catch.h"
#include "core/limits.h"
#include "core/status.h"

namespace tessera {
namespace {

using Clock = std::chrono::steady_clock;

double Since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// Makes the calls of the prompt or of every second step.
class Caller {
 public:
  Caller(Context ctx, const Model& model) : ctx_(std::move(ctx)), model_(model) {}

  // The logits of the last of `tokens`. What the state held before is not to outlive the call, but
  // for what it has from the prompt, if that is given.
  Tensor Call(std::span<const int32_t> tokens, ModelState* state, State* of_prompt) {
    const int64_t T = static_cast<int64_t>(tokens.size());
    const Tensor in = ctx_.New({1, T}, DType::kI32);
    ctx_.position = ctx_.New({1, T}, DType::kI32);
    Upload(ctx_.device(), in.raw(), tokens.data(), in.bytes());
    Upload(ctx_.device(), ctx_.position.raw(), state->NextPositions(T).data(), in.bytes());
    Tensor logits;
    const auto work = [&] {
      State before = state->layers.Copy();
      logits = model_.LastLogits(ctx_, model_.Hidden(ctx_, in, state)).value();
      if (of_prompt != nullptr) state->layers.Renew(ctx_, &before, of_prompt);
    };
    // The first call is not recorded: kernels take memory that they keep. Nor is one in which the
    // host reads values.
    if (calls_++ == 0 || reads_values_)
      work();
    else
      RunAsGraph(ctx_.device(), &graph_, work);
    ctx_.position = Tensor();
    return logits;
  }
  int64_t cuda_scratch_bytes() const { return ctx_.cuda_scratch_bytes(); }

 private:
  Context ctx_;
  const Model& model_;
  bool reads_values_ = TraitsOf(model_.config().layers).reads_values;
  int64_t calls_ = 0;
  std::unique_ptr<CudaDevice::Graph> graph_;
};

Context On(Device device, Arena* arena, DType compute) {
  Context ctx(device, arena);
  ctx.compute = compute;
  return ctx;
}

// A model on its way through a sequence.
class Reader {
 public:
  Reader(const Model& model, Device device, const GenerationMemory& memory, DType compute,
         int64_t capacity)
      : prefill_arena_(MemoryOf(device, memory.prefill)),
        step_arenas_{Arena(MemoryOf(device, memory.step)), Arena(MemoryOf(device, memory.step))},
        prefill_(On(device, &prefill_arena_, compute), model),
        steps_{{On(device, &step_arenas_[0], compute), model},
               {On(device, &step_arenas_[1], compute), model}},
        state_(model.NewState(1, capacity)) {}

  Tensor Prefill(std::span<const int32_t> prompt) {
    const Tensor logits = prefill_.Call(prompt, &state_, nullptr);
    of_prompt_ = state_.layers.Copy();
    return logits;
  }
  Tensor Step(int32_t token) {
    const size_t turn = static_cast<size_t>(steps_made_++ % 2);
    TESSERA_CHECK(step_arenas_[turn].live_bytes() == 0,
                  "a block keeps %ld bytes of its state for longer than a step",
                  step_arenas_[turn].live_bytes());
    return steps_[turn].Call(std::span(&token, 1), &state_, &of_prompt_);
  }
  int64_t state_bytes() const { return state_.bytes(); }

 private:
  Arena prefill_arena_, step_arenas_[2];
  Caller prefill_, steps_[2];
  ModelState state_;
  State of_prompt_;
  int64_t steps_made_ = 0;
};

// Logits on the host, in buffers that stay.
class Logits {
 public:
  std::span<const float> Read(Device device, const Tensor& logits) {
    const size_t n = static_cast<size_t>(logits.elements());
    floats_.resize(n);
    if (logits.dtype() == DType::kF32) {
      Download(device, floats_.data(), logits.raw(), logits.bytes());
    } else {
      halves_.resize(n);
      Download(device, halves_.data(), logits.data<bf16>(), logits.bytes());
      std::transform(halves_.begin(), halves_.end(), floats_.begin(),
                     [](bf16 x) { return static_cast<float>(x); });
    }
    return floats_;
  }

 private:
  std::vector<float> floats_;
  std::vector<bf16> halves_;
};

absl::Status CheckRequest(const Model& model, std::span<const int32_t> prompt, int64_t tokens,
                          const Sampling& sampling) {
  TESSERA_RETURN_IF_ERROR(sampling.Check());
  if (model.config().classes)
    return absl::InvalidArgumentError(
        absl::StrCat("this model cannot generate: model.classes = ", *model.config().classes,
                     ", so its head scores classes and no tokens"));
  ErrorList errors;
  CheckGeneration(model.config().layers, &errors);
  TESSERA_RETURN_IF_ERROR(errors.ToStatus());
  if (prompt.empty())
    return absl::InvalidArgumentError("the prompt is empty; at least one token is needed");
  TESSERA_RETURN_IF_ERROR(CheckTokens(prompt, model.vocab_size(), "the prompt"));
  const int64_t most = int64_t{INT32_MAX} - static_cast<int64_t>(prompt.size());
  if (tokens < 0 || tokens > most)
    return absl::InvalidArgumentError(absl::StrCat(tokens, " new tokens after a prompt of ",
                                                   prompt.size(), "; from 0 to ", most,
                                                   " are possible"));
  return absl::OkStatus();
}

}  // namespace

GenerationMemory MeasureGeneration(const Model& model, int64_t prompt_tokens, int64_t tokens,
                                   DType compute) {
  Arena prefill(Arena::Backing::kMeta, 0);
  Arena skipped(Arena::Backing::kMeta, 0);
  PassMemory unused;
  Arena steps[2] = {Arena(Arena::Backing::kMeta, 0), Arena(Arena::Backing::kMeta, 0)};
  GenerationMemory memory;
  const StateSize states = model.States(compute);
  const int64_t period = states.Period();
  const int64_t room = period > 1 ? 2 * period : 0;  // for steps behind the last
  ModelState state = model.NewState(1, prompt_tokens + tokens + room);
  const std::vector<int32_t> any(static_cast<size_t>(std::max(prompt_tokens, period)));
  State of_prompt;
  const auto call = [&](Arena* arena, std::span<const int32_t> in, PassMemory* most) {
    Caller caller(On(Device::kMeta, arena, compute), model);
    caller.Call(in, &state, arena == &prefill ? nullptr : &of_prompt);
    most->bytes = std::max(most->bytes, arena->peak_bytes());
    most->scratch_bytes = std::max(most->scratch_bytes, caller.cuda_scratch_bytes());
  };
  call(&prefill, std::span(any).first(static_cast<size_t>(prompt_tokens)), &memory.prefill);
  of_prompt = state.layers.Copy();
  const int64_t last = prompt_tokens + tokens - 2;
  int64_t at = prompt_tokens;
  size_t turn = 0;
  const auto step = [&] {
    PassMemory here;
    turn ^= 1;
    steps[turn].ResetPeak();
    call(&steps[turn], std::span(any).first(1), &here);
    memory.step.scratch_bytes = std::max(memory.step.scratch_bytes, here.scratch_bytes);
    return here.bytes;
  };
  // Layers that begin anew ask for more at some places of their period than at others.
  int64_t most = 0;
  for (const int64_t end = std::min(last, at + period); period > 1 && at <= end;) {
    most = std::max(most, step());
    int64_t next = ++at;
    while (next <= end && !states.Turns(next)) ++next;
    next = std::max(next, at + (at > end ? 1 : 0));  // the last states leave the steps' arenas
    if (next > at) call(&skipped, std::span(any).first(static_cast<size_t>(next - at)), &unused);
    at = next;
  }
  const State start = state.layers.Copy();
  const int64_t periods = last < at ? 0 : (last - at + period - 1) / period;
  int64_t at_start = 0;
  for (int64_t n = 0; n <= periods && (period > 1 || at <= last);) {
    state.layers = start.Copy();
    state.MoveTo(at + n * period);
    const int64_t here = step();
    if (n == 0) at_start = here;
    memory.step.bytes = std::max({memory.step.bytes, here, most + here - at_start});
    n = n == periods ? periods + 1 : std::min(periods, 2 * n + 1);
  }
  return memory;
}

namespace {

absl::StatusOr<Generation> Run(const Model& model, Device device, std::span<const int32_t> prompt,
                               int64_t tokens, const Sampling& sampling, DType compute,
                               const std::function<bool(int32_t)>& on_token) {
  TESSERA_RETURN_IF_ERROR(CheckRequest(model, prompt, tokens, sampling));
  Generation g{.prompt_tokens = static_cast<int64_t>(prompt.size())};
  if (tokens == 0) return g;
  const GenerationMemory memory = MeasureGeneration(model, g.prompt_tokens, tokens, compute);
  if (device == Device::kCpu)
    TESSERA_RETURN_IF_ERROR(CheckMemory(
        memory.bytes(), absl::StrCat("a generation of ", tokens, " tokens"), "ask for fewer"));
  Reader reader(model, device, memory, compute, g.prompt_tokens + tokens);
  Sampler sampler(sampling);
  Logits logits;
  auto start = Clock::now();
  TESSERA_ASSIGN_OR_RETURN(int32_t next,
                           sampler.Draw(logits.Read(device, reader.Prefill(prompt)), 0));
  g.prefill_seconds = Since(start);
  g.tokens.push_back(next);
  bool go = on_token(next);
  start = Clock::now();
  while (go && static_cast<int64_t>(g.tokens.size()) < tokens) {
    TESSERA_ASSIGN_OR_RETURN(next,
                             sampler.Draw(logits.Read(device, reader.Step(next)), g.tokens.size()));
    g.tokens.push_back(next);
    ++g.decoded_tokens;
    go = on_token(next);
  }
  g.decode_seconds = Since(start);
  g.state_bytes = reader.state_bytes();
  return g;
}

}  // namespace

absl::StatusOr<Generation> Generate(const Model& model, Device device,
                                    std::span<const int32_t> prompt, int64_t tokens,
                                    const Sampling& sampling, DType compute,
                                    const std::function<bool(int32_t)>& on_token) {
  return CatchErrors(
      [&] { return Run(model, device, prompt, tokens, sampling, compute, on_token); });
}

}  // namespace tessera
