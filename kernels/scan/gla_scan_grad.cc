#include "kernels/scan/gla_tile.h"

namespace tessera::TESSERA_ISA {
namespace {

template <class T>
class HeadGrad {
 public:
  HeadGrad(const Gradient<GlaScanArgs<T>>& g, int64_t b, int64_t h)
      : g_(g), a_(g.forward), b_(b), h_(h), w_(Allocate(g.forward)) {}

  void Run() {
    const int64_t K = a_.K, V = a_.V, head = (b_ * a_.H + h_) * K * V;
    if (g_.d.last_state.data != nullptr) {
      LoadRows(g_.d.last_state.data + head, V, K, V, dS_, w_.ldv);
    } else {
      FillZero(dS_, K * w_.ldv);
    }
    for (int64_t span = a_.spans() - 1; span >= 0; --span) {
      const int64_t first = span * kSpan, end = Smaller(first + kSpan, a_.chunks());
      States(span, end - first);
      for (int64_t chunk = end - 1; chunk >= first; --chunk) Chunk(chunk, chunk - first);
    }
    if (g_.d.state.data != nullptr)
      StoreRows(dS_, w_.ldv, K, V, g_.d.state.data + head, V, g_.d.state.mode);
  }

 private:
  GlaTiles Allocate(const GlaScanArgs<T>& a) {
    Pieces measured(nullptr);
    Take(a, GlaTiles(a, &measured), &measured);
    Pieces pieces(static_cast<float*>(ThreadScratch(measured.taken() * 4)));
    const GlaTiles w(a, &pieces);
    Take(a, w, &pieces);
    return w;
  }
  void Take(const GlaScanArgs<T>& a, const GlaTiles& w, Pieces* p) {
    float** const tiles[] = {&dQ_, &dK_, &dG_};
    for (float** tile : tiles) *tile = p->Take(kC * w.ldk);
    do_ = p->Take(kC * w.ldv);
    wide_ = p->Take(a.V * Larger(w.ldk, kC));  // a transposed tile
    dA_ = p->Take(kC * kC);
    passing_ = p->Take(w.ldk);
    dS_ = p->Take(a.K * w.ldv);
    for (float*& S : S_) S = p->Take(a.K * w.ldv);
  }

  int64_t Rows(int64_t chunk) const { return Smaller(kC, a_.T - chunk * kC); }
  int64_t Row(int64_t chunk) const { return b_ * a_.T + chunk * kC; }

  // The states at the start of each of a span's chunks.
  void States(int64_t span, int64_t chunks) {
    const int64_t K = a_.K, V = a_.V, size = K * V;
    if (span > 0) {
      const int64_t at = (b_ * (a_.spans() - 1) + span - 1) * a_.H + h_;
      LoadRows(a_.kept.data + at * size, V, K, V, S_[0], w_.ldv);
    } else if (a_.state.data != nullptr) {
      LoadRows(a_.state.data + (b_ * a_.H + h_) * size, V, K, V, S_[0], w_.ldv);
    } else {
      FillZero(S_[0], K * w_.ldv);
    }
    for (int64_t i = 0; i + 1 < chunks; ++i) {
      const int64_t chunk = span * kSpan + i;
      w_.Fill(a_, b_, chunk * kC, h_, kC);
      for (int64_t j = 0; j < V; j += kColumns) {
        const int64_t width = Smaller(kColumns, V - j);
        for (int64_t k = 0; k < K; ++k)
          ForLanes(width, [&](int64_t c, int n) {
            const int64_t at_k = k * w_.ldv + j + c;
            StorePart(S_[i + 1] + at_k, LoadPart(S_[i] + at_k, n) * w_.whole[k], n);
          });
        TileProduct(K, width, kC, w_.KU, 1, w_.ldk, w_.v + j, w_.ldv, S_[i + 1] + j, w_.ldv,
                    Grad::kAccumulate);
      }
    }
  }

  void Chunk(int64_t chunk, int64_t i) {
    const int64_t rows = Rows(chunk), row = Row(chunk), K = a_.K, V = a_.V;
    w_.Fill(a_, b_, chunk * kC, h_, rows);
    if (g_.d.o.data != nullptr) {
      LoadRows(g_.d.o.data + row * g_.d.o.stride + h_ * V, g_.d.o.stride, rows, V, do_, w_.ldv);
    } else {
      FillZero(do_, rows * w_.ldv);
    }
    PairScores(w_, rows, &work_);
    Transpose(rows, V, w_.v, w_.ldv, wide_, kC);
    TileProduct(rows, rows, V, do_, w_.ldv, 1, wide_, kC, dA_, kC, Grad::kOverwrite);
    Passing(S_[i]);
    // dV = A^T do + (k o until) dS;  dQ and dK first hold S do and dS v.
    TileProduct(rows, V, rows, w_.A, 1, kC, do_, w_.ldv, w_.out, w_.ldv, Grad::kOverwrite);
    TileProduct(rows, V, K, w_.KU, w_.ldk, 1, dS_, w_.ldv, w_.out, w_.ldv, Grad::kAccumulate);
    Transpose(K, V, S_[i], w_.ldv, wide_, w_.ldk);
    TileProduct(rows, K, V, do_, w_.ldv, 1, wide_, w_.ldk, dQ_, w_.ldk, Grad::kOverwrite);
    Transpose(K, V, dS_, w_.ldv, wide_, w_.ldk);
    TileProduct(rows, K, V, w_.v, w_.ldv, 1, wide_, w_.ldk, dK_, w_.ldk, Grad::kOverwrite);
    for (int64_t c = 0; c < K; c += kLanes) Channels(c, rows);
    StateGrad(rows);
    const auto store = [&](const float* x, int64_t ldx, int64_t width, T* y, int64_t stride,
                           Grad mode) {
      if (y != nullptr) StoreRows(x, ldx, rows, width, y + row * stride + h_ * width, stride, mode);
    };
    store(dQ_, w_.ldk, K, g_.d.q.data, g_.d.q.stride, g_.d.q.mode);
    store(dK_, w_.ldk, K, g_.d.k.data, g_.d.k.stride, g_.d.k.mode);
    store(dG_, w_.ldk, K, g_.d.g.data, g_.d.g.stride, g_.d.g.mode);
    store(w_.out, w_.ldv, V, g_.d.v.data, g_.d.v.stride, g_.d.v.mode);
  }

  // What the state that passes the chunk by owes to each of its decays: whole o rowsum(S o dS).
  void Passing(const float* S) {
    for (int64_t k = 0; k < a_.K; k += LaneSums::kRows) {
      const int64_t rows = Smaller(LaneSums::kRows, a_.K - k), at = k * w_.ldv;
      RowDots(S + at, w_.ldv, dS_ + at, w_.ldv, rows, a_.V, &work_, passing_ + k);
    }
    for (int64_t k = 0; k < a_.K; ++k) passing_[k] *= w_.whole[k];
  }

  // dq, dk and dg of a vector of channels. Each query t walks back, decaying, and meets what came
  // forward from the keys: at r stands x_r = q_t prod_{r<u<=t} decay_u against
  // z_r = sum_{s<=r} dA_ts k_s prod_{s<u<=r} decay_u.
  void Channels(int64_t c, int64_t rows) {
    const int64_t ldk = w_.ldk;
    Vec dk[kC], dg[kC], enters[kC], x[kC];
    for (int64_t t = 0; t < rows; ++t) dk[t] = dg[t] = Vec{};
    for (int64_t t = 0; t < rows; ++t) {
      x[t] = Load(w_.Q + t * ldk + c);
      for (int64_t s = t; s > 0; --s) x[s - 1] = x[s] * Load(w_.decay + s * ldk + c);
      Vec z = Vec{};
      for (int64_t s = 0; s <= t; ++s) {
        const Vec decayed = z * Load(w_.decay + s * ldk + c);
        const float dA = dA_[t * kC + s];
        dg[s] += x[s] * decayed;
        dk[s] += x[s] * dA;
        z = decayed + Load(w_.Kt + s * ldk + c) * dA;
      }
      const Vec from_start = Load(dQ_ + t * ldk + c) * Load(w_.since + t * ldk + c);
      enters[t] = from_start * Load(w_.Q + t * ldk + c);
      Store(dQ_ + t * ldk + c, (from_start + z) * a_.scale);
    }
    Edges(c, rows, enters, dk, dg);
  }

  // Adds the pairs that enter the chunk from the state, those that leave it and those that pass.
  void Edges(int64_t c, int64_t rows, const Vec* enters, const Vec* dk, Vec* dg) {
    const int64_t ldk = w_.ldk;
    Vec entering = Vec{}, leaving = Load(passing_ + c);
    for (int64_t t = rows - 1; t >= 0; --t) {
      entering += enters[t];
      dg[t] += entering;
    }
    for (int64_t t = 0; t < rows; ++t) {
      const Vec from_end = Load(dK_ + t * ldk + c) * Load(w_.until + t * ldk + c);
      dg[t] += leaving;
      leaving += from_end * Load(w_.Kt + t * ldk + c);
      Store(dK_ + t * ldk + c, from_end + dk[t]);
      Store(dG_ + t * ldk + c, dg[t]);
    }
  }

  // dS = whole o dS + (q o since)^T do.
  void StateGrad(int64_t rows) {
    for (int64_t j = 0; j < a_.V; j += kColumns) {
      const int64_t width = Smaller(kColumns, a_.V - j);
      for (int64_t k = 0; k < a_.K; ++k) {
        float* row = dS_ + k * w_.ldv + j;
        ForLanes(width, [&](int64_t i, int n) {
          StorePart(row + i, LoadPart(row + i, n) * w_.whole[k], n);
        });
      }
      TileProduct(a_.K, width, rows, w_.QS, 1, w_.ldk, do_ + j, w_.ldv, dS_ + j, w_.ldv,
                  Grad::kAccumulate);
    }
  }

  const Gradient<GlaScanArgs<T>>& g_;
  const GlaScanArgs<T>& a_;
  const int64_t b_, h_;
  float *dQ_, *dK_, *dG_, *do_, *wide_, *dA_, *passing_, *dS_, *S_[kSpan];
  const GlaTiles w_;
  LaneSums work_;
};

template <class T>
void GlaScanGrad(const Gradient<GlaScanArgs<T>>& g) {
  const GlaScanArgs<T>& a = g.forward;
  ParallelFor(a.B * a.H, [&](int64_t i) { HeadGrad<T>(g, i / a.H, i % a.H).Run(); });
}

}  // namespace

TESSERA_KERNEL_OF(Gradient<GlaScanArgs<float>>, GlaScanGrad)
TESSERA_KERNEL_OF(Gradient<GlaScanArgs<bf16>>, GlaScanGrad)

}  // namespace tessera::TESSERA_ISA
