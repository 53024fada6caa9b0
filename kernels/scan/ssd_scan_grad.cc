#include "kernels/scan/ssd_tile.h"

namespace tessera::TESSERA_ISA {
namespace {

struct SsdGradTiles {
  int64_t ldn, ldp, ldq = TileStride(kQ);
  float *B, *Bt, *C, *CB, *dCB, *M, *dM, *dB, *dC, *W;
  float *X, *U, *wide, *dY, *dU;
  float *S, *dS;

  template <class T>
  SsdGradTiles(const SsdScanArgs<T>& a, Pieces* p) : ldn(TileStride(a.N)), ldp(TileStride(a.P)) {
    B = p->Take(kQ * ldn);
    Bt = p->Take(a.N * ldq);
    C = p->Take(kQ * ldn);
    CB = p->Take(kQ * ldq);
    dCB = p->Take(kQ * ldq);
    M = p->Take(kQ * ldq);
    dM = p->Take(kQ * ldq);
    dB = p->Take(kQ * ldn);
    dC = p->Take(kQ * ldn);
    W = p->Take(kQ * ldn);
    X = p->Take(kQ * ldp);
    U = p->Take(kQ * ldp);
    dY = p->Take(kQ * ldp);
    dU = p->Take(kQ * ldp);
    wide = p->Take(a.P * Larger(ldq, ldn));  // a transposed tile
    S = p->Take(a.N * ldp);
    dS = p->Take(kMaxHeads * a.N * ldp);
  }
  float* StateGrad(int64_t i, int64_t N) const { return dS + i * N * ldp; }
};

// What a head's A_log, dt_bias and D have gathered.
struct HeadSums {
  float A_log = 0, dt_bias = 0, D = 0;
};

// The sums over the pairs s < r <= t of a chunk, for each r, as adds alone: rows of `pairs`
// (strictly lower) are added from the last one up, and row r's columns below r are what r decays.
inline void SumOverPairs(const float* pairs, int64_t ld, int64_t rows, LaneSums* work,
                         float* sums) {
  Vec below[kQ / kLanes] = {};
  IVec lane;
  for (int i = 0; i < kLanes; ++i) lane[i] = i;
  for (int64_t r = rows - 1; r >= 0; --r) {
    Vec sum = Vec{};
    for (int64_t j = 0; j * kLanes <= r; ++j) {
      below[j] += Load(pairs + r * ld + j * kLanes);
      const IVec first = ISplat(static_cast<int32_t>(r - j * kLanes));
      sum += lane < first ? below[j] : Vec{};
    }
    work->Set(r, sum);
  }
  work->Sum(rows, sums);
}

template <class T>
class HeadGrad {
 public:
  HeadGrad(const Gradient<SsdScanArgs<T>>& g, const SsdTask& task, const SsdSteps& steps, int64_t i,
           int64_t t0, int64_t rows, const SsdGradTiles& w)
      : g_(g),
        a_(g.forward),
        w_(w),
        i_(i),
        h_(task.h + i),
        N_(a_.N),
        P_(a_.P),
        rows_(rows),
        row_(task.b * a_.T + t0),
        dt_(steps.dt[i]),
        slope_(steps.slope[i]),
        decay_(steps.decay[i]),
        rate_(steps.rate[i]),
        reach_(steps.decay[i], rows) {}

  // state: S at the chunk's start, or null (zero). The tiles' dS of the head is the gradient of the
  // state at the chunk's end, then of that at its start.
  void Run(const float* state, HeadSums* sums) {
    LoadRows(a_.x.data + row_ * a_.x.stride + h_ * P_, a_.x.stride, rows_, P_, w_.X, w_.ldp);
    ScaleRows(w_.X, w_.ldp, dt_, rows_, P_, w_.U, w_.ldp);
    if (g_.d.y.data != nullptr) {
      LoadRows(g_.d.y.data + row_ * g_.d.y.stride + h_ * P_, g_.d.y.stride, rows_, P_, w_.dY,
               w_.ldp);
    } else {
      FillZero(w_.dY, rows_ * w_.ldp);
    }
    Pairs();
    Inputs();
    BAndC(state);
    if (a_.D.data != nullptr) sums->D += Dot(w_.X, w_.ldp, w_.dY, w_.ldp, rows_, P_);
    StoreInputs();
    States(state);
    StepSizes(sums);
  }

 private:
  // M = C B^T o L, and the gradients of C B^T and of L.
  void Pairs() {
    const int64_t ldq = w_.ldq;
    Transpose(rows_, P_, w_.U, w_.ldp, w_.wide, ldq);
    LowerProduct(rows_, P_, w_.dY, w_.ldp, w_.wide, ldq, w_.dM, ldq);
    IVec lane;
    for (int i = 0; i < kLanes; ++i) lane[i] = i;
    ForCausalRows(decay_, rows_, [&](int64_t t, int64_t s, Vec L) {
      const int64_t at = t * ldq + s;
      const Vec M = Load(w_.CB + at) * L, dM = Load(w_.dM + at);
      const IVec before = ISplat(static_cast<int32_t>(t - s));
      Store(w_.M + at, M);
      Store(w_.dCB + at, Load(w_.dCB + at) + (lane <= before ? dM * L : Vec{}));
      Store(w_.dM + at, lane < before ? dM * M : Vec{});
    });
    SumOverPairs(w_.dM, ldq, rows_, &work_, da_);
  }

  // dU = M^T dY + until o (B dS); of the second part also what it owes to the decays.
  void Inputs() {
    const float* dS = w_.StateGrad(i_, N_);
    TileProduct(rows_, P_, N_, w_.B, w_.ldn, 1, dS, w_.ldp, w_.dU, w_.ldp, Grad::kOverwrite);
    ScaleRows(w_.dU, w_.ldp, reach_.until, rows_, P_, w_.dU, w_.ldp);
    RowDots(w_.U, w_.ldp, w_.dU, w_.ldp, rows_, P_, &work_, to_end_);
    AddLowerTransposedTimes(rows_, P_, w_.M, w_.ldq, w_.dY, w_.ldp, w_.dU, w_.ldp);
    RowDots(w_.X, w_.ldp, w_.dU, w_.ldp, rows_, P_, &work_, ddt_);
  }

  // dB += until o (U dS^T), dC += since o (dY S^T); of the latter also what it owes to the decays.
  void BAndC(const float* state) {
    const int64_t ldn = w_.ldn;
    Transpose(N_, P_, w_.StateGrad(i_, N_), w_.ldp, w_.wide, ldn);
    TileProduct(rows_, N_, P_, w_.U, w_.ldp, 1, w_.wide, ldn, w_.W, ldn, Grad::kOverwrite);
    for (int64_t t = 0; t < rows_; ++t)
      ForLanes(N_, [&](int64_t n, int k) {
        float* dB = w_.dB + t * ldn + n;
        StorePart(dB, LoadPart(dB, k) + LoadPart(w_.W + t * ldn + n, k) * reach_.until[t], k);
      });
    if (state == nullptr) return FillZero(from_start_, rows_);
    Transpose(N_, P_, state, P_, w_.wide, ldn);
    TileProduct(rows_, N_, P_, w_.dY, w_.ldp, 1, w_.wide, ldn, w_.W, ldn, Grad::kOverwrite);
    for (int64_t t = 0; t < rows_; ++t) {
      Vec dot = Vec{};
      ForLanes(N_, [&](int64_t n, int k) {
        float* dC = w_.dC + t * ldn + n;
        const Vec v = LoadPart(w_.W + t * ldn + n, k) * reach_.since[t];
        StorePart(dC, LoadPart(dC, k) + v, k);
        dot += v * LoadPart(w_.C + t * ldn + n, k);
      });
      work_.Set(t, dot);
    }
    work_.Sum(rows_, from_start_);
  }

  void StoreInputs() {
    if (g_.d.x.data == nullptr) return;
    const Vec D = Splat(a_.D.data != nullptr ? a_.D.data[h_] : 0);
    for (int64_t t = 0; t < rows_; ++t) {
      T* dx = g_.d.x.data + (row_ + t) * g_.d.x.stride + h_ * P_;
      ForLanes(P_, [&](int64_t p, int n) {
        Vec v =
            LoadPart(w_.dU + t * w_.ldp + p, n) * dt_[t] + LoadPart(w_.dY + t * w_.ldp + p, n) * D;
        if (g_.d.x.mode == Grad::kAccumulate) v += LoadPart(dx + p, n);
        StorePart(dx + p, v, n);
      });
    }
  }

  void States(const float* state) {
    float* dS = w_.StateGrad(i_, N_);
    over_ = state == nullptr ? 0 : reach_.whole * Dot(state, P_, dS, w_.ldp, N_, P_);
    ScaleRows(w_.dY, w_.ldp, reach_.since, rows_, P_, w_.dY, w_.ldp);
    for (int64_t n = 0; n < N_; ++n)
      ForLanes(P_, [&](int64_t p, int k) {
        StorePart(dS + n * w_.ldp + p, LoadPart(dS + n * w_.ldp + p, k) * reach_.whole, k);
      });
    TileProduct(N_, P_, rows_, w_.C, 1, w_.ldn, w_.dY, w_.ldp, dS, w_.ldp, Grad::kAccumulate);
  }

  // The gradients of the decays, gathered from the pairs within the chunk, the pairs that enter it,
  // those that leave it and those that pass it by, and what follows for dt, dt_bias and A_log.
  void StepSizes(HeadSums* sums) {
    float entering = 0;
    for (int64_t t = rows_ - 1; t >= 0; --t) da_[t] += entering += from_start_[t];
    float leaving = over_;
    for (int64_t t = 0; t < rows_; ++t) {
      da_[t] += leaving;
      leaving += to_end_[t];
    }
    for (int64_t t = 0; t < rows_; ++t) {
      const float draw = (ddt_[t] - rate_ * da_[t]) * slope_[t];
      sums->A_log -= rate_ * dt_[t] * da_[t];
      sums->dt_bias += draw;
      if (g_.d.dt.data == nullptr) continue;
      T* out = g_.d.dt.data + (row_ + t) * g_.d.dt.stride + h_;
      *out = T(g_.d.dt.mode == Grad::kAccumulate ? draw + static_cast<float>(*out) : draw);
    }
  }

  const Gradient<SsdScanArgs<T>>& g_;
  const SsdScanArgs<T>& a_;
  const SsdGradTiles& w_;
  const int64_t i_, h_, N_, P_, rows_, row_;
  const float *dt_, *slope_, *decay_;
  const float rate_;
  const SsdReach reach_;
  LaneSums work_;
  float da_[kQ], to_end_[kQ], from_start_[kQ], ddt_[kQ], over_;
};

// Adds the chunk's triangle to dB and dC and hands them out: to the caller's arrays, or, where
// several tasks share a group, to this task's part of the workspace.
template <class T>
void FinishGroup(const Gradient<SsdScanArgs<T>>& g, const SsdTask& task, int64_t t0, int64_t rows,
                 const SsdGradTiles& w) {
  const SsdScanArgs<T>& a = g.forward;
  const int64_t N = a.N, row = task.b * a.T + t0;
  AddLowerTimes(rows, N, w.dCB, w.ldq, w.B, w.ldn, w.dC, w.ldn);
  AddLowerTransposedTimes(rows, N, w.dCB, w.ldq, w.C, w.ldn, w.dB, w.ldn);
  if (a.tasks_per_group() > 1) {
    const int64_t width = a.G * N, shares = a.tasks_per_group();
    float* db =
        g.d.workspace.data + g.forward.head_floats() + task.share * g.forward.share_floats();
    float* dc = db + shares * g.forward.share_floats();
    const int64_t at = row * width + task.g * N;
    StoreRows(w.dB, w.ldn, rows, N, db + at, width, Grad::kOverwrite);
    StoreRows(w.dC, w.ldn, rows, N, dc + at, width, Grad::kOverwrite);
    return;
  }
  if (g.d.b.data != nullptr)
    StoreRows(w.dB, w.ldn, rows, N, g.d.b.data + row * g.d.b.stride + task.g * N, g.d.b.stride,
              g.d.b.mode);
  if (g.d.c.data != nullptr)
    StoreRows(w.dC, w.ldn, rows, N, g.d.c.data + row * g.d.c.stride + task.g * N, g.d.c.stride,
              g.d.c.mode);
}

template <class T>
void RunTask(const Gradient<SsdScanArgs<T>>& g, const SsdTask& task) {
  const SsdScanArgs<T>& a = g.forward;
  const int64_t N = a.N, P = a.P;
  Pieces measured(nullptr);
  (void)SsdGradTiles(a, &measured);
  Pieces pieces(static_cast<float*>(ThreadScratch(measured.taken() * 4)));
  const SsdGradTiles w(a, &pieces);
  SsdSteps steps;
  HeadSums sums[kMaxHeads];
  const int64_t first = task.b * a.H + task.h;
  for (int64_t i = 0; i < task.heads; ++i) {
    if (g.d.last_state.data != nullptr) {
      LoadRows(g.d.last_state.data + (first + i) * N * P, P, N, P, w.StateGrad(i, N), w.ldp);
    } else {
      FillZero(w.StateGrad(i, N), N * w.ldp);
    }
  }
  for (int64_t chunk = a.chunks() - 1; chunk >= 0; --chunk) {
    const int64_t t0 = chunk * kQ, rows = Smaller(kQ, a.T - t0), row = task.b * a.T + t0;
    steps.Read(a, task, t0, rows);
    LoadRows(a.b.data + row * a.b.stride + task.g * N, a.b.stride, rows, N, w.B, w.ldn);
    LoadRows(a.c.data + row * a.c.stride + task.g * N, a.c.stride, rows, N, w.C, w.ldn);
    Transpose(rows, N, w.B, w.ldn, w.Bt, w.ldq);
    LowerProduct(rows, N, w.C, w.ldn, w.Bt, w.ldq, w.CB, w.ldq);
    FillZero(w.dCB, kQ * w.ldq);
    FillZero(w.dB, rows * w.ldn);
    FillZero(w.dC, rows * w.ldn);
    for (int64_t i = 0; i < task.heads; ++i) {
      const float* state = nullptr;
      if (chunk > 0) {
        const int64_t at = (task.b * (a.chunks() - 1) + chunk - 1) * a.H + task.h + i;
        state = a.chunk_states.data + at * N * P;
      } else if (a.state.data != nullptr) {
        state = a.state.data + (first + i) * N * P;
      }
      HeadGrad<T>(g, task, steps, i, t0, rows, w).Run(state, &sums[i]);
    }
    FinishGroup(g, task, t0, rows, w);
  }
  float* parts = g.d.workspace.data;
  for (int64_t i = 0; i < task.heads; ++i) {
    parts[first + i] = sums[i].A_log;
    parts[a.B * a.H + first + i] = sums[i].dt_bias;
    parts[2 * a.B * a.H + first + i] = sums[i].D;
    if (g.d.state.data != nullptr)
      StoreRows(w.StateGrad(i, N), w.ldp, N, P, g.d.state.data + (first + i) * N * P, P,
                g.d.state.mode);
  }
}

// y[h] = or += the sum over batch rows of x[b,h].
void SumBatch(const float* x, int64_t B, int64_t H, float* y, Grad mode) {
  if (y == nullptr) return;
  for (int64_t h = 0; h < H; ++h) {
    float sum = 0;
    for (int64_t b = 0; b < B; ++b) sum += x[b * H + h];
    y[h] = mode == Grad::kAccumulate ? y[h] + sum : sum;
  }
}

// y[rows,width] = or += the sum of `shares` arrays x.
template <class T>
void SumShares(const float* x, int64_t shares, int64_t share_floats, int64_t rows, int64_t width,
               T* y, int64_t stride, Grad mode) {
  if (y == nullptr) return;
  ParallelRanges(rows, 64, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r)
      ForLanes(width, [&](int64_t i, int n) {
        Vec v = Vec{};
        for (int64_t s = 0; s < shares; ++s) v += LoadPart(x + s * share_floats + r * width + i, n);
        if (mode == Grad::kAccumulate) v += LoadPart(y + r * stride + i, n);
        StorePart(y + r * stride + i, v, n);
      });
  });
}

template <class T>
void SsdScanGrad(const Gradient<SsdScanArgs<T>>& g) {
  const SsdScanArgs<T>& a = g.forward;
  const int64_t shares = a.tasks_per_group();
  ParallelFor(a.B * a.G * shares, [&](int64_t i) { RunTask(g, SsdTask(a, i)); });
  SumBatch(g.d.workspace.data, a.B, a.H, g.d.A_log.data, g.d.A_log.mode);
  SumBatch(g.d.workspace.data + a.B * a.H, a.B, a.H, g.d.dt_bias.data, g.d.dt_bias.mode);
  SumBatch(g.d.workspace.data + 2 * a.B * a.H, a.B, a.H, g.d.D.data, g.d.D.mode);
  if (shares == 1) return;
  const float* parts = g.d.workspace.data + g.forward.head_floats();
  SumShares(parts, shares, g.forward.share_floats(), a.B * a.T, a.G * a.N, g.d.b.data, g.d.b.stride,
            g.d.b.mode);
  SumShares(parts + shares * g.forward.share_floats(), shares, g.forward.share_floats(), a.B * a.T,
            a.G * a.N, g.d.c.data, g.d.c.stride, g.d.c.mode);
}

}  // namespace

TESSERA_KERNEL_OF(Gradient<SsdScanArgs<float>>, SsdScanGrad)
TESSERA_KERNEL_OF(Gradient<SsdScanArgs<bf16>>, SsdScanGrad)

}  // namespace tessera::TESSERA_ISA
