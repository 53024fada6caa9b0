#ifndef TESSERA_ARCH_BLOCK_H_
#define TESSERA_ARCH_BLOCK_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "arch/parameters.h"
#include "arch/state.h"
#include "config/fields.h"
#include "kernels/rows/norm.h"
#include "ops/context.h"

// The contract of a block: one class that writes its forward pass in ops, one config struct that
// writes its keys once, one row in arch/registry.cc. Derivatives, costs, state sizes, decoding,
// packing and tests all follow from these (tests/contract/block_contract.cc holds every registered
// block to it).

namespace tessera {

class Stack;         // arch/stack.h
struct StackConfig;  // arch/stack_config.h

// What a block is told of its place.
struct BlockShape {
  int64_t D = 0;  // width of its input and output
  // Residual layers that a token passes in the whole model, those inside of layers included, and
  // one that runs n times n times: for initialisations that depend on depth. And which this is.
  int64_t layers = 1;
  int64_t index = 0;
  int64_t kind_index = 0;          // among the blocks of its type
  int64_t vocab = 0;               // 0 while a config is checked: its tokenizer may not be read yet
  int64_t max_tokens = 0;          // longest sequence in training, train.seq; 0: not known
  NormKind norm = NormKind::kRms;  // of the model's norms
  double norm_eps = 1e-5;
  double dropout = 0;  // of the model's residual layers
  // Its ports that read from another layer: of a block that would, where it is the first.
  std::set<std::string> reads;

  bool Reads(const std::string& port) const { return reads.count(port) > 0; }
};

// What a block leaves for later ones: values of so many channels a token, in groups (the heads of
// keys). Whoever reads needs these, whatever block they come from.
struct Port {
  std::string name;                          // kv
  std::vector<std::vector<int64_t>> values;  // of each value: its shape for one token
  // With a state: the tokens that the values reach back to, their own included; -1: all; 0: there
  // is no state.
  int64_t reach = -1;
};

// A port that a block reads, and from where: `first`, the first layer of the same block type, which
// reads nothing itself; `previous`, the nearest earlier layer that has such a port; or a layer's
// name.
struct PortRead {
  Port port;
  std::string from;
  std::string key;  // in the config: kv_from
  std::string fix;  // what to change where shapes differ: "make kv_heads and head_dim equal"
};

// A list of layers in a block's config, which runs `times` for each token.
struct HeldLayers {
  StackConfig* layers;
  std::string key;  // in the config, and so in the paths of its layers
  int64_t times = 1;
  // Where the stack's sequences have another width or length: makes the block's shape the stack's.
  // Such layers see no names of layers outside of them.
  std::function<void(BlockShape*)> reshape = nullptr;
};

// The stack that a block made of it.
struct HeldStack {
  const Stack* stack;
  int64_t times = 1;
  int64_t tokens_each = 1;  // that are one for the stack
  int64_t lead = 0;         // that stand before the first
  // > 0: its state begins anew every so many tokens (StateSize::Anew).
  int64_t period = 0, extra = 0;

  // Of what its layers keep, in the block.
  StateSize StatesOf(const StateSize& inside) const {
    const StateSize of_stack = inside.Times(times);
    return period > 0 ? of_stack.Anew(period, lead, extra) : of_stack.Every(tokens_each, lead);
  }
};

// Whether a token's result depends on no later one: always, or but for training (ctx.training).
enum class Causal : uint8_t { kAlways, kInInference, kNever };

// What a block does otherwise than most. The block contract (tests/contract) holds it to the rest,
// and wants to see each exception happen, so that none is claimed in vain.
struct Traits {
  Causal causal = Causal::kAlways;
  bool packs = true;        // keeps the documents of a sequence apart, by ctx.start
  bool mixes_rows = false;  // in training, a sequence of the batch can change another's result
  bool decodes = true;      // goes on from a state, down to single tokens
  // Sequences that it runs on without a state: a multiple of so many tokens, and at most so many
  // (0: any).
  int64_t multiple_of = 1;
  int64_t max_tokens = 0;
  // How many tokens its layers see, and so how much it does and keeps, depends on values, which the
  // host reads: costs and sizes are the most that there can be, and a pass outside of training is
  // no graph on a GPU.
  bool reads_values = false;
  const char* why = "";  // of an exception: completes "since"
};

class Block {
 public:
  virtual ~Block() = default;

  // x [B,T,D] -> [B,T,D]. Without a state: whole sequences (ctx.start tells documents apart).
  // With one: a chunk that continues it, down to a single token; the state is replaced by the one
  // after the chunk. Ports are ctx.Read(port) and ctx.Leave(port, values).
  virtual Var Forward(Context& ctx, const Var& x, State* state) const = 0;

  // Of its own entries; the stacks that it holds say theirs.
  virtual StateSize States(DType compute) const = 0;
  // The stacks that it holds, in the order of its config's Layers().
  virtual std::vector<HeldStack> Stacks() const { return {}; }
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
    // What it reads from others if the shape says that there is one to read from, and what it
    // leaves for others then.
    virtual std::vector<PortRead> Reads(const BlockShape& in) const = 0;
    virtual std::vector<Port> Provides(const BlockShape& in) const = 0;
    virtual std::vector<HeldLayers> Layers() = 0;
    // Its own; those of the layers that it holds add to them (arch/traits.h).
    virtual Traits TraitsAt(const BlockShape& in) const = 0;
    virtual std::unique_ptr<Block> Build(const BlockShape& in, Parameters& p) const = 0;
  };
  std::unique_ptr<Config> (*make_config)();  // at its defaults
};

// The row of a block whose config struct has Fields(FieldList&) and Check(const BlockShape&) const,
// and whose class is constructed from (config, shape, parameters). A block with ports has Reads()
// and Provides() besides, one that holds layers Layers(), one that is in some way unlike most
// TraitsAt().
template <class BlockClass, class ConfigStruct>
constexpr BlockType DefineBlock(const char* name, const char* title, const char* paper) {
  class Erased final : public BlockType::Config {
   public:
    void Fields(FieldList& f) override { config_.Fields(f); }
    absl::Status Check(const BlockShape& in) const override { return config_.Check(in); }
    std::vector<PortRead> Reads(const BlockShape& in) const override {
      if constexpr (requires(const ConfigStruct& c) { c.Reads(in); }) return config_.Reads(in);
      return {};
    }
    std::vector<Port> Provides(const BlockShape& in) const override {
      if constexpr (requires(const ConfigStruct& c) { c.Provides(in); })
        return config_.Provides(in);
      return {};
    }
    std::vector<HeldLayers> Layers() override {
      if constexpr (requires(ConfigStruct & c) { c.Layers(); }) return config_.Layers();
      return {};
    }
    Traits TraitsAt(const BlockShape& in) const override {
      if constexpr (requires(const ConfigStruct& c) { c.TraitsAt(in); })
        return config_.TraitsAt(in);
      return {};
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
