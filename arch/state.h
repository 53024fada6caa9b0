#ifndef TESSERA_ARCH_STATE_H_
#define TESSERA_ARCH_STATE_H_

#include <cstdint>
#include <functional>
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
  // The same with its values. Chunks replace the values of a state that is not written in place, so
  // a copy is where it was made whatever comes after, and a sequence can go on from there twice.
  State Copy() const;
  // Makes the values constants: no gradient goes back before them.
  void Detach();
  // `visit` each value with its path, such as 0.2.conv: the parts on the way and the name.
  void ForEach(const std::function<void(const std::string& path, Var&)>& visit);

  // Copies what a pass left as it was `before` into the context's arena, but for what is in `kept`,
  // which stays where it is: so that no value outlives the arena that it was made in.
  void Renew(Context& ctx, State* before, State* kept);

  // As if `tokens` had been seen: what a call asks for depends on nothing else. Parts that see
  // fewer, or more, keep their share; parts that begin anew stay as they are, so that it goes by
  // whole periods of these.
  void MoveTo(int64_t tokens);
  // As it was before the first token.
  void Restart();

  int64_t tokens = 0;  // seen so far, counted by the stack that the block is in
  // > 0 in generation: caches are allocated once for this many tokens and written in place, without
  // gradients.
  int64_t capacity = 0;
  bool restarts = false;  // begins anew now and then (StateSize::Restarting)

 private:
  std::map<std::string, Var> entries_;
  std::vector<std::unique_ptr<State>> parts_;  // they keep their addresses
};

// The bytes of a state for one sequence: a fixed part, caches, each of which grows with each token
// up to a limit, and states that begin anew every so many tokens.
struct StateSize {
  struct Cache {
    int64_t bytes_per_token = 0;
    int64_t max_tokens = -1;  // -1: grows without end
    // Tokens of the sequence that are one for the cache, the last ones of a sequence as many as
    // come; and tokens that count as seen before the first.
    int64_t tokens_each = 1, lead = 0;
  };
  struct Restarting;
  int64_t fixed_bytes = 0;
  std::vector<Cache> caches;
  std::vector<Restarting> restarting;
  // Where what a step does depends on its place: behind every `every` tokens, as if `lead` stood
  // before the first.
  struct Turn {
    int64_t every, lead;
  };
  std::vector<Turn> turns;

  StateSize& operator+=(const StateSize& other);
  StateSize Times(int64_t n) const;
  // On a sequence of which n tokens are one, as if `lead` tokens stood before the first.
  StateSize Every(int64_t n, int64_t lead) const;
  // Of layers that begin anew behind every `period` tokens, as if `lead` tokens stood before the
  // first, each time with `extra` rows besides those of the tokens.
  StateSize Anew(int64_t period, int64_t lead, int64_t extra) const;
  int64_t After(int64_t tokens) const;
  // In the long run: what does not grow any more, and what each token adds.
  int64_t BoundedBytes() const;
  int64_t BytesPerToken() const;
  // Tokens after which a step does the same again; whether this token of the sequence is next to a
  // place where it does something else.
  int64_t Period() const;
  bool Turns(int64_t token) const;
};
struct StateSize::Restarting {
  int64_t period, extra;
  StateSize inside;
  int64_t tokens_each = 1, lead = 0;
  int64_t Rows(int64_t tokens) const;  // since it began anew, behind so many
  int64_t After(int64_t tokens) const;
};

}  // namespace tessera

#endif  // TESSERA_ARCH_STATE_H_
