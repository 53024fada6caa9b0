#include "kernels/convolution/causal_conv.h"

#include "kernels/convolution/conv_tile.h"

namespace tessera::TESSERA_ISA {
namespace {

template <int kW, bool kEdge, class P, class T>
void Block(const ConvWindow<P>& window, const float* taps, ConvActivation activation, int64_t rows,
           int64_t width, T* y, int64_t stride) {
  ForLanes(width, [&](int64_t i, int n) {
    Vec w[kW + 1];
    for (int j = 0; j <= kW; ++j) w[j] = Load(taps + j * kConvColumns + i);
    for (int64_t r = 0; r < rows; ++r) {
      const Vec u = Convolved<kW>(window, w, r, i, n, kEdge ? window.reach[r] : kW - 1);
      StorePart(y + r * stride + i, activation == ConvActivation::kSilu ? Silu(u) : u, n);
    }
  });
}

// The last W-1 inputs, without those that lie before the document of the last token.
template <class T>
void KeepLast(const CausalConvArgs<T>& a, const ConvTask& task) {
  const int64_t kept = a.W - 1, reach = Smaller(kept - 1, Reach(a, task.b, a.T - 1));
  for (int64_t i = 0; i < kept; ++i) {
    const int64_t token = a.T - kept + i;
    float* out = a.last_state.data + (task.b * kept + i) * a.C + task.c;
    if (a.T - 1 - token > reach) {
      FillZero(out, task.width);
    } else if (token >= 0) {
      LoadRows(a.x.data + (task.b * a.T + token) * a.x.stride + task.c, 0, 1, task.width, out, 0);
    } else if (a.state.data != nullptr) {
      LoadRows(a.state.data + (task.b * kept + kept + token) * a.C + task.c, 0, 1, task.width, out,
               0);
    } else {
      FillZero(out, task.width);
    }
  }
}

template <int kW, class T>
void RunTask(const CausalConvArgs<T>& a, const ConvTask& task) {
  Pieces pieces(static_cast<float*>(ThreadScratch((kWindow + kTaps + 1) * kConvColumns * 4)));
  float *taps = pieces.Take((kTaps + 1) * kConvColumns),
        *stage = pieces.Take(kWindow * kConvColumns);
  LoadTaps(a, task, taps);
  for (int64_t t = task.begin; t < task.end; t += kConvRows) {
    const int64_t rows = Smaller(kConvRows, task.end - t);
    T* y = a.y.data + (task.b * a.T + t) * a.y.stride + task.c;
    if (IsEdge(a, task.b, t, rows)) {
      ConvWindow<float> window;
      StageWindow(a, task, t, rows, stage, &window);
      Block<kW, true>(window, taps, a.activation, rows, task.width, y, a.y.stride);
    } else {
      ConvWindow<T> window;
      PointWindow(a, task, t, rows, &window);
      Block<kW, false>(window, taps, a.activation, rows, task.width, y, a.y.stride);
    }
  }
  if (a.last_state.data != nullptr && task.end == a.T) KeepLast(a, task);
}

template <class T>
void CausalConv(const CausalConvArgs<T>& a) {
  ParallelFor(ConvTask::Count(a), [&](int64_t i) {
    ByConvWidth(a.W, [&](auto w) { RunTask<decltype(w)::value>(a, ConvTask(a, i)); });
  });
}

}  // namespace

TESSERA_KERNEL(CausalConv)

}  // namespace tessera::TESSERA_ISA
