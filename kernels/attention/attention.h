#ifndef TESSERA_KERNELS_ATTENTION_ATTENTION_H_
#define TESSERA_KERNELS_ATTENTION_ATTENTION_H_

#include <cstdint>
#include <string>

#include "core/dtype.h"
#include "kernels/cost.h"

// Causal softmax attention (Vaswani et al. 2017, eq. 1) with grouped keys (Ainslie et al. 2023), a
// sliding window (Beltagy et al. 2020) and a cap on the logits (Gemma 2, section 2):
//   s_ij = cap(scale q_i . k_j),   o_i = sum_j exp(s_ij - lse_i) v_j,   lse_i = log sum_j
//   exp(s_ij), cap(s) = soft_cap tanh(s / soft_cap), or s where soft_cap = 0.
// It is computed in tiles with a running maximum and never holds a T x T matrix; the gradient
// recomputes the tiles from lse (Dao 2023, arXiv:2307.08691, algorithms 1 and 2).
//
// Head h reads key head h / (H / Hkv). Keys and values come in two pieces, so that a chunk
// continues a cache without a copy: L past rows and T fresh ones; key j is past row j for j < L,
// else fresh row j - L. The past is a ring of `past_capacity` rows a batch row: past row j stands
// in slot (past_first + j) mod past_capacity of it.
//
// Query t sees key j iff  max(L + start[t], L + t - window + 1, 0) <= j <= L + t.
// start[t] is the row of this chunk at which t's document begins (Context::start), negative where
// that lies in the past; null: no document begins in this chunk. window counts keys, the query's
// own included; 0: all of them.

namespace tessera {

// The (query, key) pairs that a causal window leaves visible in one head of one batch row.
// Documents are not considered: they are data, and a cost is a function of shapes.
constexpr int64_t VisiblePairs(int64_t T, int64_t L, int64_t window) {
  const int64_t growing =
      window <= 0 ? T : (window - L < 0 ? 0 : (window - L < T ? window - L : T));
  return growing * L + growing * (growing + 1) / 2 + (T - growing) * window;
}

template <class T_>
struct AttentionArgs {
  static constexpr char kName[] = "attention";
  const T_* q;  // [B,T,H*K]
  int64_t q_stride;
  const T_* k;  // [B,T,Hkv*K]
  int64_t k_stride;
  const T_* v;  // [B,T,Hkv*V]
  int64_t v_stride;
  const T_* past_k = nullptr;  // [B,past_capacity,Hkv*K]
  int64_t past_k_stride = 0;
  const T_* past_v = nullptr;  // [B,past_capacity,Hkv*V]
  int64_t past_v_stride = 0;
  const int32_t* start = nullptr;  // [B,T]
  T_* o;                           // [B,T,H*V]
  int64_t o_stride;
  float* lse = nullptr;        // [B,H,T], or null: not wanted
  float* workspace = nullptr;  // workspace_floats(), contents undefined
  int64_t B, T, H, Hkv, K, V;
  int64_t L = 0, past_first = 0, past_capacity = 0;
  int64_t window = 0;
  float scale;
  float soft_cap = 0;

  // Decoding: a few tokens, however many heads share a key head, against a long cache are cut along
  // the keys as well. The pieces' sums are in the workspace. Up to kDecodeQueries queries of a key
  // head are little work, and so get long pieces, more of them shorter ones; a GPU has more to do
  // at once, and so short ones.
  static constexpr int64_t kDecodeQueries = 8, kDecodeTokens = 8;
  static constexpr int64_t kLongPiece = 1024, kPiece = 512, kShortPiece = 256;
  constexpr int64_t key_head_queries() const { return T * (H / Hkv); }
  constexpr bool few_queries() const { return key_head_queries() <= kDecodeQueries; }
  constexpr bool decode() const {
    return few_queries() || (T <= kDecodeTokens && L + T > kShortPiece);
  }
  constexpr int64_t decode_keys() const { return few_queries() ? kLongPiece : kPiece; }
  constexpr int64_t decode_pieces() const { return (L + T + decode_keys() - 1) / decode_keys(); }
  constexpr int64_t cuda_decode_pieces() const { return (L + T + kShortPiece - 1) / kShortPiece; }
  constexpr int64_t workspace_floats() const {
    return decode() ? B * cuda_decode_pieces() * T * H * (V + 2) : 0;
  }

  // Why the CUDA kernels cannot, or nothing.
  static constexpr int64_t kCudaWidth = 256;
  std::string CudaLimit() const {
    if (K <= kCudaWidth && V <= kCudaWidth) return "";
    return "heads of " + std::to_string(K > V ? K : V) +
           " channels; the CUDA kernels of attention take up to " + std::to_string(kCudaWidth);
  }

  Cost cost() const {
    const int64_t keys = T + (window > 0 && window - 1 < L ? window - 1 : L);
    return {.flops = 2 * (K + V) * B * H * VisiblePairs(T, L, window),
            .bytes = static_cast<int64_t>(sizeof(T_)) * B * (K + V) * (T * H + keys * Hkv)};
  }
};

// Given dL/do, adds or writes dL/dq, dL/dk, dL/dv and the same for the past rows; each may be null.
// The past gradients are laid out as the past itself, and only the L slots in use are written.
template <class T_>
struct AttentionGradArgs {
  static constexpr char kName[] = "attention_grad";
  AttentionArgs<T_> forward;  // o and lse hold the results of the forward pass
  const T_* dout;             // [B,T,H*V]
  int64_t dout_stride;
  T_* dq = nullptr;  // [B,T,H*K]
  int64_t dq_stride = 0;
  Grad dq_mode = Grad::kOverwrite;
  T_* dk = nullptr;  // [B,T,Hkv*K]
  int64_t dk_stride = 0;
  Grad dk_mode = Grad::kOverwrite;
  T_* dv = nullptr;  // [B,T,Hkv*V]
  int64_t dv_stride = 0;
  Grad dv_mode = Grad::kOverwrite;
  T_* dpast_k = nullptr;  // [B,past_capacity,Hkv*K]
  int64_t dpast_k_stride = 0;
  Grad dpast_k_mode = Grad::kOverwrite;
  T_* dpast_v = nullptr;  // [B,past_capacity,Hkv*V]
  int64_t dpast_v_stride = 0;
  Grad dpast_v_mode = Grad::kOverwrite;
  float* workspace = nullptr;  // workspace_floats(), contents undefined

  // Queries and keys are paired in blocks; a gradient that gathers from several pairs does so in
  // fp32: dq [B,H,T,K], dk [B,Hkv,L+T,K], dv [B,Hkv,L+T,V].
  constexpr int64_t block() const { return forward.K + forward.V <= 256 ? 256 : 128; }
  constexpr int64_t dq_floats() const { return forward.B * forward.T * forward.H * forward.K; }
  constexpr int64_t key_rows() const { return forward.B * (forward.L + forward.T); }
  constexpr int64_t dk_floats() const { return key_rows() * forward.Hkv * forward.K; }
  constexpr int64_t dv_floats() const { return key_rows() * forward.Hkv * forward.V; }
  constexpr int64_t workspace_floats() const {
    return forward.L + forward.T <= block() ? 0 : dq_floats() + dk_floats() + dv_floats();
  }

  // What the CUDA kernels ask for, in floats: <do, o> of every query.
  int64_t CudaScratch() const { return forward.B * forward.H * forward.T; }

  Cost cost() const {
    const AttentionArgs<T_>& f = forward;
    Cost c = f.cost();
    // Five products in place of two: the scores again, dP, dV, dK, dQ. Every operand is read, and
    // as many bytes of gradients are written.
    return {.flops = 2 * (3 * f.K + 2 * f.V) * f.B * f.H * VisiblePairs(f.T, f.L, f.window),
            .bytes = 2 * c.bytes};
  }
};

}  // namespace tessera

#endif  // TESSERA_KERNELS_ATTENTION_ATTENTION_H_
