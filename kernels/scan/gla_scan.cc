#include "kernels/scan/gla_scan.h"

#include "kernels/scan/gla_tile.h"

namespace tessera::TESSERA_ISA {
namespace {

// Up to this many tokens go one by one: a step reads and writes the state once and is bound by
// that.
constexpr int64_t kFewTokens = 2;

template <class T>
void RunHead(const GlaScanArgs<T>& a, int64_t b, int64_t h) {
  Pieces measured(nullptr);
  const int64_t ldv = GlaTiles(a, &measured).ldv;
  (void)measured.Take(a.K * ldv);
  Pieces pieces(static_cast<float*>(ThreadScratch(measured.taken() * 4)));
  const GlaTiles w(a, &pieces);
  float* S = pieces.Take(a.K * ldv);
  LaneSums work;
  const int64_t head = (b * a.H + h) * a.K * a.V;
  if (a.state.data != nullptr) {
    LoadRows(a.state.data + head, a.V, a.K, a.V, S, ldv);
  } else {
    FillZero(S, a.K * ldv);
  }
  for (int64_t chunk = 0; chunk < a.chunks(); ++chunk) {
    const int64_t t0 = chunk * kC, rows = Smaller(kC, a.T - t0), row = b * a.T + t0;
    if (chunk > 0 && chunk % kSpan == 0 && a.kept.data != nullptr) {
      const int64_t at = (b * (a.spans() - 1) + chunk / kSpan - 1) * a.H + h;
      StoreRows(S, ldv, a.K, a.V, a.kept.data + at * a.K * a.V, a.V, Grad::kOverwrite);
    }
    w.Fill(a, b, t0, h, rows);
    PairScores(w, rows, &work);
    for (int64_t j = 0; j < a.V; j += kColumns) {
      const int64_t width = Smaller(kColumns, a.V - j);
      TileProduct(rows, width, a.K, w.QS, w.ldk, 1, S + j, ldv, w.out + j, ldv, Grad::kOverwrite);
      TileProduct(rows, width, rows, w.A, kC, 1, w.v + j, ldv, w.out + j, ldv, Grad::kAccumulate);
      if (a.last_state.data != nullptr || t0 + rows < a.T) Advance(w, rows, j, width, S);
    }
    StoreRows(w.out, ldv, rows, a.V, a.o.data + row * a.o.stride + h * a.V, a.o.stride,
              Grad::kOverwrite);
  }
  if (a.last_state.data != nullptr)
    StoreRows(S, ldv, a.K, a.V, a.last_state.data + head, a.V, Grad::kOverwrite);
}

// S = decay o S + k v^T and o = S^T q, row by row of S. `from` may be null (zero) or S itself; `to`
// may be null.
inline void Step(int64_t K, int64_t V, const float* from, float* to, const float* q, const float* k,
                 const float* decay, const float* v, float* o) {
  FillZero(o, V);
  for (int64_t r = 0; r < K; ++r)
    ForLanes(V, [&](int64_t i, int n) {
      Vec s = LoadPart(v + i, n) * k[r];
      if (from != nullptr) s += LoadPart(from + r * V + i, n) * decay[r];
      if (to != nullptr) StorePart(to + r * V + i, s, n);
      StorePart(o + i, LoadPart(o + i, n) + s * q[r], n);
    });
}

template <class T>
void RunSteps(const GlaScanArgs<T>& a, int64_t b, int64_t h) {
  Pieces measured(nullptr);
  (void)GlaTiles(a, &measured);
  (void)measured.Take(a.K * a.V);
  Pieces pieces(static_cast<float*>(ThreadScratch(measured.taken() * 4)));
  const GlaTiles w(a, &pieces);
  float* between = pieces.Take(a.K * a.V);
  const int64_t head = (b * a.H + h) * a.K * a.V;
  const float* from = a.state.data == nullptr ? nullptr : a.state.data + head;
  float* last = a.last_state.data == nullptr ? nullptr : a.last_state.data + head;
  w.Fill(a, b, 0, h, a.T);
  for (int64_t t = 0; t < a.T; ++t) {
    float* to = t + 1 < a.T ? between : last;
    Step(a.K, a.V, from, to, w.Q + t * w.ldk, w.Kt + t * w.ldk, w.decay + t * w.ldk,
         w.v + t * w.ldv, w.out + t * w.ldv);
    from = to;
  }
  StoreRows(w.out, w.ldv, a.T, a.V, a.o.data + b * a.T * a.o.stride + h * a.V, a.o.stride,
            Grad::kOverwrite);
}

template <class T>
void GlaScan(const GlaScanArgs<T>& a) {
  ParallelFor(a.B * a.H, [&](int64_t i) {
    a.T <= kFewTokens ? RunSteps(a, i / a.H, i % a.H) : RunHead(a, i / a.H, i % a.H);
  });
}

}  // namespace

TESSERA_KERNEL(GlaScan)

}  // namespace tessera::TESSERA_ISA
