#ifndef TESSERA_KERNELS_ATTENTION_ATTENTION_H_
#define TESSERA_KERNELS_ATTENTION_ATTENTION_H_

#include <cstdint>
#include <string>

#include "core/dtype.h"
#include "kernels/view.h"

// Softmax attention (Vaswani et al. 2017, eq. 1) with grouped keys (Ainslie et al. 2023), a sliding
// window (Beltagy et al. 2020) and a cap on the logits (Gemma 2, section 2):
//   s_ij = cap(scale q_i . k_j),   o_i = sum_j exp(s_ij - lse_i) v_j,   lse_i = log sum_j
//   exp(s_ij), cap(s) = soft_cap tanh(s / soft_cap), or s where soft_cap = 0.
// It is computed in tiles with a running maximum and never holds a T x T matrix; the gradient
// recomputes the tiles from lse (Dao 2023, arXiv:2307.08691, algorithms 1 and 2).
//
// Head h reads key head h / (H / Hkv). Keys and values come in two pieces, so that a chunk
// continues a cache without a copy: L past rows and T fresh ones; key j is past row j for j < L,
// else fresh row j - L. The past is a ring of `past_capacity` rows a batch row: past row j stands
// in slot (past_first + j) mod past_capacity of it, and its gradient is laid out alike, of which
// only the L slots in use are written.
//
// Query t, whose own key is L + t, sees the keys [low_t, high_t):
//   low_t = max(L + start[t], L + t - window + 1, 0),
//   high_t = min(L + end[t], L + t + after + 1).
// start[t] is the row of this chunk at which t's document begins (Context::start), negative where
// that lies in the past; none: no document begins in this chunk. end[t] is the row behind its last
// token; none: T. window counts keys up to the query's own; 0: all of them. after counts keys
// behind it; negative: all of them, and 0 is causal attention, which does not read end. Neither
// low nor high falls as t grows.

namespace tessera {

// The (query, key) pairs that are visible in one head of one batch row. Documents are not
// considered: they are data, and a cost is a function of shapes.
constexpr int64_t VisiblePairs(int64_t T, int64_t L, int64_t window, int64_t after = 0) {
  const int64_t growing =
      window <= 0 ? T : (window - L < 0 ? 0 : (window - L < T ? window - L : T));
  const int64_t behind = after < 0 || after > T ? T : after;  // all but the last see so many
  return growing * L + growing * (growing + 1) / 2 + (T - growing) * window +
         behind * (behind - 1) / 2 + behind * (T - behind);
}

template <class T_>
struct AttentionArgs {
  static constexpr char kName[] = "attention", kGradName[] = "attention_grad";
  View<T_> q;                      // [B,T,H*K]
  View<T_> k;                      // [B,T,Hkv*K]
  View<T_> v;                      // [B,T,Hkv*V]
  View<T_> past_k, past_v;         // [B,past_capacity,Hkv*K], [B,past_capacity,Hkv*V], or none
  View<const int32_t> start, end;  // [B,T], or none
  View<T_> o;                      // [B,T,H*V]
  View<float> lse;                 // [B,H,T], for the gradient
  View<float> pieces;              // of decoding
  View<float> sums;                // of the gradient
  int64_t B, T, H, Hkv, K, V;
  int64_t L = 0, past_first = 0, past_capacity = 0;
  int64_t window = 0, after = 0;
  float scale;
  float soft_cap = 0;
  template <class F>
  void Tensors(F&& f) {
    f.In("q", q, {B, T, H * K});
    f.In("k", k, {B, T, Hkv * K});
    f.In("v", v, {B, T, Hkv * V});
    f.In("past_k", past_k, {B, past_capacity, Hkv * K}, kOptional);
    f.In("past_v", past_v, {B, past_capacity, Hkv * V}, kOptional);
    f.Index("start", start, {B, T}, kOptional);
    f.Index("end", end, {B, T}, kOptional);
    f.Out("o", o, {B, T, H * V}, kReread);
    f.Kept("lse", lse, {B, H, T});
    f.Workspace("pieces", pieces, {pieces_floats()});
    f.GradWorkspace("sums", sums, {sums_floats()});
  }

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
  constexpr int64_t pieces_floats() const {
    return decode() ? B * cuda_decode_pieces() * T * H * (V + 2) : 0;
  }

  // The gradient. Queries and keys are paired in blocks; a gradient that gathers from several pairs
  // does so in fp32: dq [B,H,T,K], dk [B,Hkv,L+T,K], dv [B,Hkv,L+T,V].
  constexpr int64_t block() const { return K + V <= 256 ? 256 : 128; }
  constexpr int64_t dq_floats() const { return B * T * H * K; }
  constexpr int64_t dk_floats() const { return B * (L + T) * Hkv * K; }
  constexpr int64_t dv_floats() const { return B * (L + T) * Hkv * V; }
  constexpr int64_t sums_floats() const {
    return L + T <= block() ? 0 : dq_floats() + dk_floats() + dv_floats();
  }

  // Why the CUDA kernels cannot, or nothing.
  static constexpr int64_t kCudaWidth = 256;
  std::string CudaLimit() const {
    if (K <= kCudaWidth && V <= kCudaWidth) return "";
    return "heads of " + std::to_string(K > V ? K : V) +
           " channels; the CUDA kernels of attention take up to " + std::to_string(kCudaWidth);
  }
  // What those of the gradient ask for, in floats: <do, o> of every query.
  int64_t GradCudaScratch() const { return B * H * T; }

  constexpr int64_t pairs() const { return B * H * VisiblePairs(T, L, window, after); }
  Cost cost() const {
    const int64_t keys = T + (window > 0 && window - 1 < L ? window - 1 : L);
    return {.flops = 2 * (K + V) * pairs(),
            .bytes = static_cast<int64_t>(sizeof(T_)) * B * (K + V) * (T * H + keys * Hkv)};
  }
  // Five products in place of two: the scores again, dP, dV, dK, dQ. Every operand is read, and as
  // many bytes of gradients are written.
  Cost grad_cost() const {
    return {.flops = 2 * (3 * K + 2 * V) * pairs(), .bytes = 2 * cost().bytes};
  }
};

}  // namespace tessera

#endif  // TESSERA_KERNELS_ATTENTION_ATTENTION_H_
