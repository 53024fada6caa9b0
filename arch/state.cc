#include "arch/state.h"

#include "core/check.h"
#include "core/sizes.h"

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
  for (const auto& [name, var] : entries_) outline.entries_[name];
  for (const auto& part : parts_)
    outline.parts_.push_back(std::make_unique<State>(part->Outline()));
  return outline;
}

void State::MoveTo(int64_t to) {
  for (const auto& part : parts_) part->MoveTo(tokens == 0 ? to : part->tokens * to / tokens);
  tokens = to;
}

StateSize& StateSize::operator+=(const StateSize& other) {
  fixed_bytes = SaturatingSum(fixed_bytes, other.fixed_bytes);
  caches.insert(caches.end(), other.caches.begin(), other.caches.end());
  return *this;
}

StateSize StateSize::Times(int64_t n) const {
  StateSize size = *this;
  size.fixed_bytes = CheckedProduct({n, fixed_bytes});
  for (Cache& c : size.caches) c.bytes_per_token = CheckedProduct({n, c.bytes_per_token});
  return size;
}

StateSize StateSize::Every(int64_t n) const {
  StateSize size = *this;
  for (Cache& c : size.caches) c.tokens_each = CheckedProduct({n, c.tokens_each});
  return size;
}

int64_t StateSize::After(int64_t tokens) const {
  int64_t bytes = fixed_bytes;
  for (const Cache& c : caches) {
    const int64_t kept = (tokens + c.tokens_each - 1) / c.tokens_each;
    bytes += c.bytes_per_token * (c.max_tokens < 0 ? kept : std::min(kept, c.max_tokens));
  }
  return bytes;
}

int64_t StateSize::BoundedBytes() const {
  int64_t bytes = fixed_bytes;
  for (const Cache& c : caches)
    if (c.max_tokens >= 0) bytes = SaturatingSum(bytes, c.bytes_per_token * c.max_tokens);
  return bytes;
}

int64_t StateSize::BytesPerToken() const {
  int64_t bytes = 0;
  for (const Cache& c : caches)
    if (c.max_tokens < 0) bytes += c.bytes_per_token / c.tokens_each;
  return bytes;
}

}  // namespace tessera
