#include "arch/registry.h"
#include "tests/contract/block_contract.h"

namespace tessera::testing {
namespace {

// Whether a block stands at its defaults: one that holds layers has none that all would want.
bool HasDefaults(const BlockType& type) { return type.make_config()->Layers().empty(); }

// Where a block's code takes another way than at its defaults. One line a corner.
const std::vector<BlockCase> kCorners = {
    {"attention", "{heads: 4, kv_heads: 2, window: 8, qk_norm: true, gate: true}"},
    {"attention", "{heads: 2, kv_heads: 1, head_dim: 24, soft_cap: 5, bias: true, window: 2}"},
    {"attention",
     "{heads: 4, rope: {pairing: interleaved, scaling: {type: yarn, factor: 4, "
     "original_length: 64}}}"},
    {"attention", "{rope: none, window: 40, bias: qvo}"},
    {"attention", "{heads: 4, kv_heads: 1, bias: true, gate: true}"},
    {"attention", "{rope: none, bias: true}", 64, {"k_bias"}},
    {"attention", "{window: 1}", 64, {"q", "k"}},
    {"attention", "{causal: false}"},
    {"attention", "{causal: false, window: 8, heads: 4, kv_heads: 2, qk_norm: true, gate: true}"},
    {"attention", "{causal: false, window: 2, rope: none, soft_cap: 5, bias: true}"},
    {"gla", "{heads: 2, expand_k: 1, expand_v: 2, conv: 4}", 32},
    {"gla", "{heads: 3, gate_rank: 1, gate_divisor: 1}", 36},
    {"hourglass", "{layers: [attention, mlp]}"},
    {"hourglass",
     "{shorten: 3, layers: [{gla: {heads: 2}, norm: none}, {attention: {heads: 2, window: 5}}]}",
     32},
    {"hourglass",
     "{shorten: 2, layers: [{hourglass: {shorten: 2, layers: [{mamba2: {d_state: 5, head_dim: "
     "8}}]}}, "
     "{mlp: {d_ff: 9}}]}",
     16},
    {"linformer", "{length: 128}"},
    {"linformer", "{heads: 2, head_dim: 9, rank: 7, length: 71, share: true}", 16},
    {"mamba2", "{d_state: 16, head_dim: 8, groups: 2, expand: 1.5, bias: true}", 32},
    {"mamba2", "{d_state: 5, head_dim: 16, conv: 2, conv_bias: false}", 32},
    {"megabyte", "{patch: 4, global: [attention, mlp], layers: [attention, mlp]}"},
    {"megabyte",
     "{patch: 3, global_width: 24, global: [{gla: {heads: 2}}], layers: [{mamba2: {d_state: 5, "
     "head_dim: 8}}, {attention: {heads: 2, window: 2}}]}",
     16},
    {"mixture_of_depths",
     "{capacity: 0.4, layers: [attention, mlp]}",
     64,
     {"predictor_in", "predictor_in_bias", "predictor"}},
    {"mixture_of_depths",
     "{capacity: 0.7, layers: [{gla: {heads: 2}, norm: none}, {attention: {heads: 2, window: 3}}]}",
     16,
     {"predictor_in", "predictor_in_bias", "predictor"}},
    {"mlp", "{activation: geglu, bias: true}"},
    {"mlp", "{activation: gelu, d_ff: 37, bias: true}"},
    {"mlp", "{activation: relu2}"},
    {"mlp", "{activation: silu, d_ff: 1}"},
    {"moe", "{experts: 1, top_k: 1, d_ff: 5}", 64, {"router"}},
    {"moe", "{experts: 6, top_k: 1, d_ff: 9}"},
    {"moe", "{experts: 37, top_k: 6, d_ff: 7, expert: geglu, scores: topk_then_softmax}"},
    {"moe", "{expert: gelu, renormalise: false, routed_scale: 2.5, balance_loss: 0, z_loss: 0}"},
    {"moe", "{expert: relu2, shared: 2, shared_d_ff: 19, shared_gate: true}"},
    {"moe", "{experts: 4, shared: 1, capacity_factor: 1}"},
    {"moe", "{expert: silu, d_ff: 11}"},
    {"nystromformer", "{heads: 2, landmarks: 5, conv: 3, steps: 4}", 32},
    {"nystromformer", "{heads: 3, head_dim: 5, landmarks: 100, conv: 5}", 16},
    {"nystromformer", "{landmarks: 1, conv: 0}"},
    {"recurrent", "{layers: [attention, mlp]}"},
    {"recurrent", "{steps: 1, layers: [{gla: {heads: 2}, norm: none}]}"},
    {"recurrent",
     "{steps: 3, inject: true, layers: [{gla: {heads: 2}, name: a}, {parallel: {branches: "
     "[{attention: {window: 8}}, {moe: {experts: 2, d_ff: 8}}], combine: concat}}, "
     "{mlp: {d_ff: 16}, input: a, norm: post}]}",
     16},
    {"recurrent",
     "{layers: [{attention: {window: 5}}, {recurrent: {layers: [{attention: {kv_from: first, "
     "window: 3}, residual: false, norm: sandwich}]}}]}",
     16},
    {"recurrent",
     "{steps: 1, layers: [{attention: {window: 5}, share: a, lora: {rank: 3, match: out}}, {mlp: "
     "{d_ff: 16}, share: m}, {attention: {window: 5}, share: a, lora: {rank: 2, match: v|out}}, "
     "{mlp: {d_ff: 16}, share: m, lora: {rank: 5, alpha: 5}}]}",
     16},
    {"recurrent_memory", "{segment: 16, tokens: 3, layers: [attention, mlp]}"},
    {"recurrent_memory",
     "{segment: 29, tokens: 1, layers: [{gla: {heads: 2}}, {attention: {heads: 2, window: 4}}]}",
     16},
    {"recurrent_memory",
     "{segment: 13, tokens: 2, layers: [{hourglass: {shorten: 2, layers: [{gla: {heads: 2}}]}}]}",
     16},
};

// The same with adapters beside its weights, which are frozen; every block's defaults have them
// too.
const std::vector<BlockCase> kAdapted = {
    {"attention", "{heads: 4, kv_heads: 2, gate: true, bias: true, window: 9}", 16},
    {"moe", "{experts: 6, top_k: 2, d_ff: 9, shared: 1, shared_gate: true}", 16},
    {.block = "moe",
     .config = "{experts: 4, expert: gelu, d_ff: 16, capacity_factor: 1}",
     .D = 16,
     .lora = LoraConfig{.rank = 2, .match = "up|down"}},
    {"recurrent",
     "{steps: 1, layers: [{attention: {heads: 2}}, {moe: {experts: 4, d_ff: 8}, share: m}, {moe: "
     "{experts: 4, d_ff: 8}, share: m, lora: {rank: 2}}]}",
     16},
};

}  // namespace

std::vector<BlockCase> AllBlockCases() {
  std::vector<BlockCase> cases;
  for (const BlockType* type : AllBlocks())
    if (HasDefaults(*type)) cases.push_back({type->name, "{}"});
  cases.insert(cases.end(), kCorners.begin(), kCorners.end());
  std::vector<BlockCase> adapted = kAdapted;
  for (const BlockType* type : AllBlocks())
    if (HasDefaults(*type)) adapted.push_back({type->name, "{}"});
  for (BlockCase c : adapted) {
    if (!c.lora) c.lora = LoraConfig{.rank = 1, .alpha = 1, .match = "*"};
    cases.push_back(c);
  }
  return cases;
}

}  // namespace tessera::testing
