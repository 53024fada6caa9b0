#include "kernels/scan/ssd_scan.h"

#include "kernels/scan/ssd_tile.h"

namespace tessera::TESSERA_ISA {
namespace {

// Up to this many tokens go one by one: a step reads and writes the state once and is bound by
// that.
constexpr int64_t kFewTokens = 2;

struct SsdTiles {
  int64_t ldn, ldp, ldq = TileStride(kQ);
  float *B, *Bt, *C, *CB, *M, *U, *V, *Y, *S;

  template <class T>
  SsdTiles(const SsdScanArgs<T>& a, Pieces* p) : ldn(TileStride(a.N)), ldp(TileStride(a.P)) {
    B = p->Take(kQ * ldn);
    Bt = p->Take(a.N * ldq);
    C = p->Take(kQ * ldn);
    CB = p->Take(kQ * ldq);
    M = p->Take(kQ * ldq);
    U = p->Take(kQ * ldp);
    V = p->Take(kQ * ldp);
    Y = p->Take(kQ * ldp);
    S = p->Take(kMaxHeads * a.N * ldp);
  }
  // The state of the task's i-th head.
  float* State(int64_t i, int64_t N) const { return S + i * N * ldp; }
};

// One head through one chunk, whose B, C and C B^T are in the tiles.
template <class T>
void RunHead(const SsdScanArgs<T>& a, const SsdTask& task, const SsdSteps& steps, int64_t i,
             int64_t t0, int64_t rows, const SsdTiles& w) {
  const int64_t h = task.h + i, N = a.N, P = a.P;
  const SsdReach reach(steps.decay[i], rows);
  const T* x = a.x.data + (task.b * a.T + t0) * a.x.stride + h * P;
  float* S = w.State(i, N);
  ScaleRows(x, a.x.stride, steps.dt[i], rows, P, w.U, w.ldp);

  ForCausalRows(steps.decay[i], rows, [&](int64_t t, int64_t s, Vec L) {
    Store(w.M + t * w.ldq + s, Load(w.CB + t * w.ldq + s) * L);
  });
  TileProduct(rows, P, N, w.C, w.ldn, 1, S, w.ldp, w.Y, w.ldp, Grad::kOverwrite);
  const Vec D = Splat(a.D.data != nullptr ? a.D.data[h] : 0);
  for (int64_t t = 0; t < rows; ++t) {
    float* y = w.Y + t * w.ldp;
    ForLanes(P, [&](int64_t p, int n) {
      const Vec skip = D * LoadPart(x + t * a.x.stride + p, n);
      StorePart(y + p, LoadPart(y + p, n) * reach.since[t] + skip, n);
    });
  }
  AddLowerTimes(rows, P, w.M, w.ldq, w.U, w.ldp, w.Y, w.ldp);
  StoreRows(w.Y, w.ldp, rows, P, a.y.data + (task.b * a.T + t0) * a.y.stride + h * P, a.y.stride,
            Grad::kOverwrite);

  if (a.last_state.data == nullptr && t0 + rows == a.T) return;
  ScaleRows(w.U, w.ldp, reach.until, rows, P, w.V, w.ldp);
  for (int64_t n = 0; n < N; ++n)
    ForLanes(P, [&](int64_t p, int k) {
      StorePart(S + n * w.ldp + p, LoadPart(S + n * w.ldp + p, k) * reach.whole, k);
    });
  TileProduct(N, P, rows, w.B, 1, w.ldn, w.V, w.ldp, S, w.ldp, Grad::kAccumulate);
}

template <class T>
void RunTask(const SsdScanArgs<T>& a, const SsdTask& task) {
  const int64_t N = a.N, P = a.P;
  Pieces measured(nullptr);
  (void)SsdTiles(a, &measured);
  Pieces pieces(static_cast<float*>(ThreadScratch(measured.taken() * 4)));
  const SsdTiles w(a, &pieces);
  SsdSteps steps;
  for (int64_t i = 0; i < task.heads; ++i) {
    if (a.state.data != nullptr) {
      LoadRows(a.state.data + (task.b * a.H + task.h + i) * N * P, P, N, P, w.State(i, N), w.ldp);
    } else {
      FillZero(w.State(i, N), N * w.ldp);
    }
  }
  for (int64_t chunk = 0; chunk < a.chunks(); ++chunk) {
    const int64_t t0 = chunk * kQ, rows = Smaller(kQ, a.T - t0), row = task.b * a.T + t0;
    steps.Read(a, task, t0, rows);
    LoadRows(a.b.data + row * a.b.stride + task.g * N, a.b.stride, rows, N, w.B, w.ldn);
    LoadRows(a.c.data + row * a.c.stride + task.g * N, a.c.stride, rows, N, w.C, w.ldn);
    Transpose(rows, N, w.B, w.ldn, w.Bt, w.ldq);
    LowerProduct(rows, N, w.C, w.ldn, w.Bt, w.ldq, w.CB, w.ldq);
    for (int64_t i = 0; i < task.heads; ++i) {
      if (chunk > 0 && a.chunk_states.data != nullptr) {
        const int64_t at = (task.b * (a.chunks() - 1) + chunk - 1) * a.H + task.h + i;
        StoreRows(w.State(i, N), w.ldp, N, P, a.chunk_states.data + at * N * P, P,
                  Grad::kOverwrite);
      }
      RunHead(a, task, steps, i, t0, rows, w);
    }
  }
  if (a.last_state.data == nullptr) return;
  for (int64_t i = 0; i < task.heads; ++i)
    StoreRows(w.State(i, N), w.ldp, N, P, a.last_state.data + (task.b * a.H + task.h + i) * N * P,
              P, Grad::kOverwrite);
}

// S = decay S + B u^T and y = S^T C + skip, row by row of S. `from` may be null (zero) or S itself;
// `to` may be null.
void Step(int64_t N, int64_t P, float decay, const float* from, float* to, const float* B,
          const float* C, const float* u, float* y) {
  for (int64_t n = 0; n < N; ++n)
    ForLanes(P, [&](int64_t p, int k) {
      Vec s = LoadPart(u + p, k) * B[n];
      if (from != nullptr) s += LoadPart(from + n * P + p, k) * decay;
      if (to != nullptr) StorePart(to + n * P + p, s, k);
      StorePart(y + p, LoadPart(y + p, k) + s * C[n], k);
    });
}

template <class T>
void RunSteps(const SsdScanArgs<T>& a, const SsdTask& task) {
  const int64_t N = a.N, P = a.P;
  Pieces pieces(static_cast<float*>(ThreadScratch((2 * N + 2 * P + N * P + 80) * 4)));
  float *B = pieces.Take(N), *C = pieces.Take(N), *u = pieces.Take(P), *y = pieces.Take(P);
  float* between = pieces.Take(N * P);
  SsdSteps steps;
  steps.Read(a, task, 0, a.T);
  for (int64_t i = 0; i < task.heads; ++i) {
    const int64_t h = task.h + i, head = (task.b * a.H + h) * N * P;
    const float* from = a.state.data == nullptr ? nullptr : a.state.data + head;
    for (int64_t t = 0; t < a.T; ++t) {
      const int64_t row = task.b * a.T + t;
      const T* x = a.x.data + row * a.x.stride + h * P;
      const Vec D = Splat(a.D.data != nullptr ? a.D.data[h] : 0);
      LoadRows(a.b.data + row * a.b.stride + task.g * N, 0, 1, N, B, 0);
      LoadRows(a.c.data + row * a.c.stride + task.g * N, 0, 1, N, C, 0);
      ForLanes(P, [&](int64_t p, int n) {
        const Vec v = LoadPart(x + p, n);
        StorePart(u + p, v * steps.dt[i][t], n);
        StorePart(y + p, v * D, n);
      });
      float* last = a.last_state.data == nullptr ? nullptr : a.last_state.data + head;
      float* to = t + 1 < a.T ? between : last;
      Step(N, P, steps.decay[i][t], from, to, B, C, u, y);
      StoreRows(y, 0, 1, P, a.y.data + row * a.y.stride + h * P, 0, Grad::kOverwrite);
      from = to;
    }
  }
}

template <class T>
void SsdScan(const SsdScanArgs<T>& a) {
  ParallelFor(a.B * a.G * a.tasks_per_group(), [&](int64_t i) {
    const SsdTask task(a, i);
    a.T <= kFewTokens ? RunSteps(a, task) : RunTask(a, task);
  });
}

}  // namespace

TESSERA_KERNEL(SsdScan)

}  // namespace tessera::TESSERA_ISA
