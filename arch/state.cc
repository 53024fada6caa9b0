#include "arch/state.h"

#include <algorithm>
#include <numeric>

#include "core/check.h"
#include "core/sizes.h"
#include "kernels/pointwise/copy.h"

namespace tessera {

State& State::Part(size_t i) {
  while (parts_.size() <= i) {
    parts_.push_back(std::make_unique<State>());
    parts_.back()->capacity = capacity;
  }
  return *parts_[i];
}

int64_t State::bytes() const {
  int64_t bytes = 0;
  for (const auto& [name, var] : entries_)
    if (var.defined()) bytes += var.value().bytes();
  for (const auto& part : parts_) bytes += part->bytes();
  return bytes;
}

Context::Vars State::Values() const {
  Context::Vars values;
  for (const auto& [name, var] : entries_) values.push_back(var);
  for (const auto& part : parts_)
    for (Var& v : part->Values()) values.push_back(std::move(v));
  return values;
}

void State::SetValues(std::span<const Var> values) {
  size_t next = 0;
  const auto set = [&](const auto& again, State* state) -> void {
    for (auto& [name, var] : state->entries_) {
      TESSERA_CHECK(next < values.size(), "a state of more than %zu values", values.size());
      var = values[next++];
    }
    for (const auto& part : state->parts_) again(again, part.get());
  };
  set(set, this);
  TESSERA_CHECK(next == values.size(), "%zu values for a state of %zu", values.size(), next);
}

State State::Outline() const {
  State outline;
  outline.tokens = tokens;
  outline.capacity = capacity;
  outline.restarts = restarts;
  for (const auto& [name, var] : entries_) outline.entries_[name];
  for (const auto& part : parts_)
    outline.parts_.push_back(std::make_unique<State>(part->Outline()));
  return outline;
}

State State::Copy() const {
  State copy = Outline();
  copy.SetValues(Values());
  return copy;
}

void State::Detach() {
  ForEach([](const std::string&, Var& v) { v = v.Detach(); });
}

void State::ForEach(const std::function<void(const std::string&, Var&)>& visit) {
  const auto below = [&](const auto& again, State* state, const std::string& prefix) -> void {
    for (auto& [name, var] : state->entries_) visit(prefix + name, var);
    for (size_t i = 0; i < state->parts_.size(); ++i)
      again(again, state->parts_[i].get(), prefix + std::to_string(i) + ".");
  };
  below(below, this, "");
}

void State::Renew(Context& ctx, State* before, State* kept) {
  const auto by_path = [](State* state) {
    std::map<std::string, Tensor> tensors;
    state->ForEach([&](const std::string& path, Var& v) { tensors[path] = v.value(); });
    return tensors;
  };
  const std::map<std::string, Tensor> old = by_path(before), stay = by_path(kept);
  const auto holds = [](const std::map<std::string, Tensor>& all, const std::string& path,
                        const Tensor& t) {
    const auto at = all.find(path);
    return at != all.end() && t.SharesMemory(at->second);
  };
  ForEach([&](const std::string& path, Var& v) {
    const Tensor& from = v.value();
    if (!v.defined() || !holds(old, path, from) || holds(stay, path, from)) return;
    const Tensor to = ctx.New(from.shape(), from.dtype());
    ByDType(from.dtype(), [&](auto tag) {
      using T = decltype(tag);
      ctx.Run(CopyArgs<T>{.x = from.data<T>(),
                          .x_stride = from.stride(),
                          .y = to.data<T>(),
                          .y_stride = to.stride(),
                          .mode = Grad::kOverwrite,
                          .rows = from.rows(),
                          .C = from.dim(-1)});
    });
    v = Var(to);
  });
}

void State::Restart() {
  entries_.clear();
  parts_.clear();
  tokens = 0;
}

void State::MoveTo(int64_t to) {
  if (restarts) return;
  for (const auto& part : parts_) part->MoveTo(tokens == 0 ? to : part->tokens * to / tokens);
  tokens = to;
}

StateSize& StateSize::operator+=(const StateSize& other) {
  fixed_bytes = SaturatingSum(fixed_bytes, other.fixed_bytes);
  caches.insert(caches.end(), other.caches.begin(), other.caches.end());
  restarting.insert(restarting.end(), other.restarting.begin(), other.restarting.end());
  turns.insert(turns.end(), other.turns.begin(), other.turns.end());
  return *this;
}

StateSize StateSize::Times(int64_t n) const {
  StateSize size = *this;
  size.fixed_bytes = CheckedProduct({n, fixed_bytes});
  for (Cache& c : size.caches) c.bytes_per_token = CheckedProduct({n, c.bytes_per_token});
  for (Restarting& r : size.restarting) r.inside = r.inside.Times(n);
  return size;
}

StateSize StateSize::Every(int64_t n, int64_t lead) const {
  StateSize size = *this;
  const auto place = [&](auto& of) {
    of.lead = lead + CheckedProduct({n, of.lead});
    of.tokens_each = CheckedProduct({n, of.tokens_each});
  };
  for (Cache& c : size.caches) place(c);
  for (Restarting& r : size.restarting) place(r);
  for (Turn& t : size.turns) t = {CheckedProduct({n, t.every}), lead + CheckedProduct({n, t.lead})};
  if (n > 1) size.turns.push_back({n, lead});
  return size;
}

StateSize StateSize::Anew(int64_t period, int64_t lead, int64_t extra) const {
  StateSize size;
  size.restarting.push_back({.period = period, .extra = extra, .inside = *this, .lead = lead});
  return size;
}

int64_t StateSize::Restarting::Rows(int64_t tokens) const {
  return tokens == 0 ? 0 : (tokens + lead + tokens_each - 1) / tokens_each % period;
}

int64_t StateSize::Restarting::After(int64_t tokens) const {
  const int64_t rows = Rows(tokens);
  return rows == 0 ? 0 : inside.After(rows + extra);
}

int64_t StateSize::After(int64_t tokens) const {
  int64_t bytes = fixed_bytes;
  for (const Cache& c : caches) {
    const int64_t kept = tokens == 0 ? 0 : (tokens + c.lead + c.tokens_each - 1) / c.tokens_each;
    bytes += c.bytes_per_token * (c.max_tokens < 0 ? kept : std::min(kept, c.max_tokens));
  }
  for (const Restarting& r : restarting) bytes += r.After(tokens);
  return bytes;
}

int64_t StateSize::BoundedBytes() const {
  int64_t bytes = fixed_bytes;
  for (const Cache& c : caches)
    if (c.max_tokens >= 0) bytes = SaturatingSum(bytes, c.bytes_per_token * c.max_tokens);
  for (const Restarting& r : restarting)
    bytes = SaturatingSum(bytes, r.inside.After(r.period - 1 + r.extra));
  return bytes;
}

int64_t StateSize::BytesPerToken() const {
  int64_t bytes = 0;
  for (const Cache& c : caches)
    if (c.max_tokens < 0) bytes += c.bytes_per_token / c.tokens_each;
  return bytes;
}

int64_t StateSize::Period() const {
  int64_t period = 1;
  for (const Turn& t : turns) period = std::lcm(period, t.every);
  for (const Restarting& r : restarting)
    period = std::lcm(period, r.tokens_each * std::lcm(r.period, r.inside.Period()));
  return period;
}

bool StateSize::Turns(int64_t token) const {
  return std::any_of(turns.begin(), turns.end(),
                     [&](const Turn& t) {
                       const int64_t at = (token + t.lead) % t.every;
                       return at < 2 || at == t.every - 1;
                     }) ||
         std::any_of(restarting.begin(), restarting.end(), [&](const Restarting& r) {
           const int64_t before = r.Rows(token), behind = r.Rows(token + 1);
           return behind < 2 || before == 0 || r.inside.Turns(before);
         });
}

}  // namespace tessera
