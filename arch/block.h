#ifndef TESSERA_ARCH_BLOCK_H_
#define TESSERA_ARCH_BLOCK_H_

#include <algorithm>
#include <cstdint>
#include <map>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "arch/parameters.h"
#include "config/fields.h"
#include "ops/context.h"

// The contract of a block: one class that writes its forward pass in ops, one config struct that
// writes its keys once, one row in arch/registry.cc. Derivatives, costs, state sizes, decoding,
// packing and tests all follow from these (tests/contract/block_contract.cc holds every registered
// block to it).

namespace tessera {

// What a block remembers of the tokens before this chunk: named Vars [B, ...], owned by the caller,
// differentiable. An undefined entry is the state before the first token (zeros). A chunk reads the
// entries and replaces them.
class State {
 public:
  Var& At(const std::string& name) { return entries_[name]; }
  const std::map<std::string, Var>& entries() const { return entries_; }
  // Live bytes of all entries, and so what StateSize must say.
  int64_t bytes() const;

  int64_t tokens = 0;  // seen so far, counted by the model
  // > 0 in generation: caches are allocated once for this many tokens and written in place, without
  // gradients.
  int64_t capacity = 0;

 private:
  std::map<std::string, Var> entries_;
};

// The bytes of a block's state for one sequence: a fixed part, and a part that grows with each
// token up to a limit.
struct StateSize {
  int64_t fixed_bytes = 0;
  int64_t bytes_per_token = 0;
  int64_t max_tokens = -1;  // -1: grows without end
  int64_t After(int64_t tokens) const {
    return fixed_bytes + bytes_per_token * (max_tokens < 0 ? tokens : std::min(tokens, max_tokens));
  }
};

// What a block is told of its place.
struct BlockShape {
  int64_t D = 0;  // width of its input and output
  int64_t layers =
      1;  // residual layers in the whole model, for initialisations that depend on depth
};

class Block {
 public:
  virtual ~Block() = default;

  // x [B,T,D] -> [B,T,D]. Without a state: whole sequences (ctx.start tells documents apart).
  // With one: a chunk that continues it, down to a single token; the state is replaced by the one
  // after the chunk.
  virtual Var Forward(Context& ctx, const Var& x, State* state) const = 0;

  virtual StateSize States(DType compute) const = 0;

  // Whether one sequence of a batch can change another's result (capacity limits do), so that the
  // contract does not ask otherwise.
  virtual bool MixesRows() const { return false; }
  // Parameters of which a token uses only a part (experts): elements that one token leaves out.
  virtual int64_t IdleParameters() const { return 0; }
};

// A row of the registry.
struct BlockType {
  const char* name;   // the key in the config
  const char* title;  // Gated linear attention
  const char* paper;  // arXiv:2312.06635
  // A block's config, behind the functions that the model's builder needs.
  class Config {
   public:
    virtual ~Config() = default;
    virtual void Fields(FieldList& f) = 0;
    // A mistake that no single key shows, as "heads = 6 does not divide d_model = 256".
    virtual absl::Status Check(const BlockShape& in) const = 0;
    // The name of an earlier layer whose block this one reads (its keys and values, say), or empty.
    virtual std::string Source() const = 0;
    // Whether that layer's block has what this one wants to read.
    virtual absl::Status CheckSource(const Config& source, const BlockShape& in) const = 0;
    virtual std::unique_ptr<Block> Build(const BlockShape& in, Parameters& p) const = 0;
  };
  std::unique_ptr<Config> (*make_config)();  // at its defaults
};

// The row of a block whose config struct has Fields(FieldList&) and Check(const BlockShape&) const,
// and whose class is constructed from (config, shape, parameters). A block that can read another of
// its kind also has Source() and CheckSource(other, shape); what it reads is in ctx.edges.
template <class BlockClass, class ConfigStruct>
constexpr BlockType DefineBlock(const char* name, const char* title, const char* paper) {
  class Erased final : public BlockType::Config {
   public:
    void Fields(FieldList& f) override { config_.Fields(f); }
    absl::Status Check(const BlockShape& in) const override { return config_.Check(in); }
    std::string Source() const override {
      if constexpr (requires(const ConfigStruct& c) { c.Source(); }) return config_.Source();
      return "";
    }
    absl::Status CheckSource(const BlockType::Config& source, const BlockShape& in) const override {
      if constexpr (requires(const ConfigStruct& c) { c.CheckSource(c, in); })
        if (const auto* same = dynamic_cast<const Erased*>(&source); same != nullptr)
          return config_.CheckSource(same->config_, in);
      return absl::InvalidArgumentError("is a layer of another kind");
    }
    std::unique_ptr<Block> Build(const BlockShape& in, Parameters& p) const override {
      return std::make_unique<BlockClass>(config_, in, p);
    }

   private:
    ConfigStruct config_;
  };
  return {name, title, paper, [] { return std::unique_ptr<BlockType::Config>(new Erased); }};
}

}  // namespace tessera

#endif  // TESSERA_ARCH_BLOCK_H_
