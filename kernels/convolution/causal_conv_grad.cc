#include "kernels/convolution/conv_tile.h"

namespace tessera::TESSERA_ISA {
namespace {

// What a task carries from block to block, from the last to the first.
struct Carried {
  float *taps, *stage;
  float* later;  // [W - 1, kConvColumns]: du of the tokens after the block
  float* sums;   // [W + 1, kConvColumns]: of the gradients of the taps and the bias
  int32_t later_reach[kTaps];
};

// dL/du = dy silu'(u).
template <class T>
inline Vec Incoming(const T* dy, int n, Vec u, ConvActivation activation) {
  const Vec d = dy == nullptr ? Vec{} : LoadPart(dy, n);
  return activation == ConvActivation::kSilu ? d * SiluGrad(u) : d;
}

// Rows of a block, seen from the gradients.
template <class T>
struct GradRows {
  const T* dy;  // of the block's first token and the task's first channel, or null
  int64_t dy_stride;
  T* dx;  // the same, or null
  int64_t dx_stride;
  Grad mode;
  const float* last[kConvRows];  // in an edge block, dL/d(last state) of the rows kept there
};

template <int kW, bool kEdge, class P, class T>
void Block(const ConvWindow<P>& window, const GradRows<T>& g, ConvActivation activation,
           int64_t rows, int64_t width, const Carried& carried) {
  ForLanes(width, [&](int64_t i, int n) {
    Vec w[kW + 1], sum[kW + 1], du[kConvRows + kW - 1];
    for (int j = 0; j <= kW; ++j) {
      w[j] = Load(carried.taps + j * kConvColumns + i);
      sum[j] = Load(carried.sums + j * kConvColumns + i);
    }
    for (int j = 0; j < kW - 1; ++j) du[rows + j] = Load(carried.later + j * kConvColumns + i);
    for (int64_t r = rows - 1; r >= 0; --r) {
      const int reach = kEdge ? window.reach[r] : kW - 1;
      const Vec u = Convolved<kW>(window, w, r, i, n, reach);
      const Vec d =
          Incoming(g.dy == nullptr ? nullptr : g.dy + r * g.dy_stride + i, n, u, activation);
      du[r] = d;
      sum[kW] += d;
#pragma GCC unroll 8
      for (int l = 0; l < kW; ++l)
        if (l <= reach) sum[kW - 1 - l] += d * LoadPart(window.in[r + kW - 1 - l] + i, n);
    }
    for (int64_t r = 0; g.dx != nullptr && r < rows; ++r) {
      T* dx = g.dx + r * g.dx_stride + i;
      Vec v = g.mode == Grad::kAccumulate ? LoadPart(dx, n) : Vec{};
#pragma GCC unroll 8
      for (int l = 0; l < kW; ++l)
        if (!kEdge || l <= window.reach[r + l]) v += w[kW - 1 - l] * du[r + l];
      if (kEdge && g.last[r] != nullptr) v += LoadPart(g.last[r] + i, n);
      StorePart(dx, v, n);
    }
    for (int j = 0; j <= kW; ++j) Store(carried.sums + j * kConvColumns + i, sum[j]);
    for (int j = 0; j < kW - 1; ++j) Store(carried.later + j * kConvColumns + i, du[j]);
  });
}

template <int kW, class T>
class TaskGrad {
 public:
  TaskGrad(const Gradient<CausalConvArgs<T>>& g, const ConvTask& task)
      : g_(g), a_(g.forward), task_(task) {
    const int64_t lines = kWindow + 3 * kTaps + 2;
    Pieces pieces(static_cast<float*>(ThreadScratch(lines * kConvColumns * 4)));
    carried_.taps = pieces.Take((kTaps + 1) * kConvColumns);
    carried_.sums = pieces.Take((kTaps + 1) * kConvColumns);
    carried_.later = pieces.Take(kTaps * kConvColumns);
    carried_.stage = pieces.Take(kWindow * kConvColumns);
  }

  void Run() {
    LoadTaps(a_, task_, carried_.taps);
    Later();
    FillZero(carried_.sums, (kTaps + 1) * kConvColumns);
    const int64_t blocks = (task_.end - task_.begin + kConvRows - 1) / kConvRows;
    for (int64_t i = blocks - 1; i >= 0; --i) {
      const int64_t t = task_.begin + i * kConvRows;
      RunBlock(t, Smaller(kConvRows, task_.end - t), g_.d.x.data);
    }
    if (task_.begin == 0 && g_.d.state.data != nullptr) StateGrad();
    float* out =
        g_.d.workspace.data + (task_.b * g_.forward.runs() + task_.run) * (kW + 1) * a_.C + task_.c;
    StoreRows(carried_.sums, kConvColumns, kW + 1, task_.width, out, a_.C, Grad::kOverwrite);
  }

 private:
  // Computes du of the first W-1 tokens after the run; its sums are those of another task and are
  // dropped.
  void Later() {
    FillZero(carried_.later, kTaps * kConvColumns);
    for (int32_t& reach : carried_.later_reach) reach = kW - 1;
    const int64_t rows = Smaller(kW - 1, a_.T - task_.end);
    if (rows > 0) RunBlock(task_.end, rows, nullptr);
  }

  void RunBlock(int64_t t, int64_t rows, T* dx) {
    const int64_t row = task_.b * a_.T + t;
    GradRows<T> rows_of{
        .dy = g_.d.y.data == nullptr ? nullptr : g_.d.y.data + row * g_.d.y.stride + task_.c,
        .dy_stride = g_.d.y.stride,
        .dx = dx == nullptr ? nullptr : dx + row * g_.d.x.stride + task_.c,
        .dx_stride = g_.d.x.stride,
        .mode = g_.d.x.mode,
        .last = {}};
    bool edge = IsEdge(a_, task_.b, t, rows) || t + rows > a_.T - (kW - 1);
    for (int l = 0; l < kW - 1; ++l) edge |= carried_.later_reach[l] < kW - 1;
    if (edge) {
      ConvWindow<float> window;
      StageWindow(a_, task_, t, rows, carried_.stage, &window);
      for (int l = 0; l < kW - 1; ++l) window.reach[rows + l] = carried_.later_reach[l];
      for (int64_t r = 0; r < rows; ++r) rows_of.last[r] = LastGrad(t + r);
      Block<kW, true>(window, rows_of, a_.activation, rows, task_.width, carried_);
      for (int l = 0; l < kW - 1; ++l) carried_.later_reach[l] = window.reach[l];
    } else {
      ConvWindow<T> window;
      PointWindow(a_, task_, t, rows, &window);
      Block<kW, false>(window, rows_of, a_.activation, rows, task_.width, carried_);
    }
  }

  // The gradient of a token's place in the last state, or null.
  const float* LastGrad(int64_t token) const {
    const int64_t back = a_.T - 1 - token;
    if (g_.d.last_state.data == nullptr || back > Smaller(kW - 2, Reach(a_, task_.b, a_.T - 1)))
      return nullptr;
    return g_.d.last_state.data + (task_.b * (kW - 1) + kW - 2 - back) * a_.C + task_.c;
  }

  void StateGrad() {
    for (int64_t j = 0; j < kW - 1; ++j) {
      float* out = g_.d.state.data + (task_.b * (kW - 1) + j) * a_.C + task_.c;
      const float* last = LastGrad(j - (kW - 1));
      ForLanes(task_.width, [&](int64_t i, int n) {
        Vec v = g_.d.state.mode == Grad::kAccumulate ? LoadPart(out + i, n) : Vec{};
        for (int64_t t = 0; t <= j && t < a_.T; ++t) {
          const int64_t l = t + kW - 1 - j;
          if (l > Reach(a_, task_.b, t)) continue;
          v += LoadPart(carried_.taps + (kW - 1 - l) * kConvColumns + i, n) *
               LoadPart(carried_.later + t * kConvColumns + i, n);
        }
        if (last != nullptr) v += LoadPart(last + i, n);
        StorePart(out + i, v, n);
      });
    }
  }

  const Gradient<CausalConvArgs<T>>& g_;
  const CausalConvArgs<T>& a_;
  const ConvTask& task_;
  Carried carried_;
};

// Adds up what the runs have summed, in order.
template <class T>
void AddRuns(const Gradient<CausalConvArgs<T>>& g) {
  const int64_t C = g.forward.C, W = g.forward.W, parts = g.forward.B * g.forward.runs();
  ParallelRanges(C, 64, [&](int64_t begin, int64_t end) {
    for (int64_t j = 0; j <= W; ++j) {
      float sums[64] = {};
      for (int64_t p = 0; p < parts; ++p) {
        const float* x = g.d.workspace.data + (p * (W + 1) + j) * C;
        for (int64_t c = begin; c < end; ++c) sums[c - begin] += x[c];
      }
      float* out = j < W ? g.d.weight.data : g.d.bias.data;
      const Grad mode = j < W ? g.d.weight.mode : g.d.bias.mode;
      for (int64_t c = begin; out != nullptr && c < end; ++c) {
        float& y = j < W ? out[c * W + j] : out[c];
        y = mode == Grad::kAccumulate ? y + sums[c - begin] : sums[c - begin];
      }
    }
  });
}

template <class T>
void CausalConvGrad(const Gradient<CausalConvArgs<T>>& g) {
  const CausalConvArgs<T>& a = g.forward;
  ParallelFor(ConvTask::Count(a), [&](int64_t i) {
    const ConvTask task(a, i);
    ByConvWidth(a.W, [&](auto w) { TaskGrad<decltype(w)::value, T>(g, task).Run(); });
  });
  AddRuns(g);
}

}  // namespace

TESSERA_KERNEL_OF(Gradient<CausalConvArgs<float>>, CausalConvGrad)
TESSERA_KERNEL_OF(Gradient<CausalConvArgs<bf16>>, CausalConvGrad)

}  // namespace tessera::TESSERA_ISA
