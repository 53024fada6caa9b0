#ifndef TESSERA_ARCH_STATE_H_
#define TESSERA_ARCH_STATE_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "ops/context.h"

namespace tessera {

// What a block remembers of the tokens before this chunk: named Vars [B, ...], owned by the caller,
// differentiable. An undefined entry is the state before the first token (zeros). A chunk reads the
// entries and replaces them. States are a tree: a stack's has a part for each layer, and a block
// that holds stacks has a part for each time that one runs.
class State {
 public:
  Var& At(const std::string& name) { return entries_[name]; }
  const std::map<std::string, Var>& entries() const { return entries_; }
  // A part, made where there is none yet, with this state's capacity.
  State& Part(size_t i);
  // Live bytes of all entries and parts, and so what StateSize must say.
  int64_t bytes() const;

  // The entries of this state and then those of its parts, in one order for states of one outline.
  Context::Vars Values() const;
  void SetValues(std::span<const Var> values);
  // The same tree with the same counts and names, and no values.
  State Outline() const;

  // As if `tokens` had been seen: what a call asks for depends on nothing else. Parts that see
  // fewer, or more, keep their share.
  void MoveTo(int64_t tokens);

  int64_t tokens = 0;  // seen so far, counted by the stack that the block is in
  // > 0 in generation: caches are allocated once for this many tokens and written in place, without
  // gradients.
  int64_t capacity = 0;

 private:
  std::map<std::string, Var> entries_;
  std::vector<std::unique_ptr<State>> parts_;  // they keep their addresses
};

// The bytes of a state for one sequence: a fixed part, and caches, each of which grows with each
// token up to a limit.
struct StateSize {
  struct Cache {
    int64_t bytes_per_token = 0;
    int64_t max_tokens = -1;  // -1: grows without end
    // Tokens of the sequence that are one for the cache, the last ones of a sequence as many as
    // come.
    int64_t tokens_each = 1;
  };
  int64_t fixed_bytes = 0;
  std::vector<Cache> caches;

  StateSize& operator+=(const StateSize& other);
  StateSize Times(int64_t n) const;
  // On a sequence of which n tokens are one.
  StateSize Every(int64_t n) const;
  int64_t After(int64_t tokens) const;
  // In the long run: what does not grow any more, and what each token adds.
  int64_t BoundedBytes() const;
  int64_t BytesPerToken() const;
};

}  // namespace tessera

#endif  // TESSERA_ARCH_STATE_H_
