#ifndef TESSERA_KERNELS_CONVOLUTION_CONV_TILE_H_
#define TESSERA_KERNELS_CONVOLUTION_CONV_TILE_H_

#include "kernels/convolution/causal_conv.h"
#include "kernels/cpu/vmath.h"
#include "kernels/scan/scan_tile.h"

// What both directions of the causal convolution share: the cut into tasks, and the rows that a
// block of tokens reads.

namespace tessera::TESSERA_ISA {
namespace {

// A task takes a run of tokens and some channels, block by block. A block is a few tokens, since
// tokens lie far apart and more of them would meet in the same sets of the cache.
constexpr int64_t kConvRun = CausalConvArgs<float>::kRun, kConvRows = 4, kConvColumns = 512;
constexpr int64_t kTaps = CausalConvArgs<float>::kMaxWidth, kWindow = kConvRows + kTaps - 1;

struct ConvTask {
  int64_t b, run, begin, end, c, width;  // tokens [begin, end), channels [c, c + width)

  template <class T>
  static int64_t Count(const CausalConvArgs<T>& a) {
    return a.B * Runs(a.T) * ((a.C + kConvColumns - 1) / kConvColumns);
  }
  template <class T>
  ConvTask(const CausalConvArgs<T>& a, int64_t index) {
    const int64_t columns = (a.C + kConvColumns - 1) / kConvColumns;
    c = index % columns * kConvColumns;
    width = Smaller(kConvColumns, a.C - c);
    run = index / columns % Runs(a.T);
    b = index / columns / Runs(a.T);
    begin = run * kConvRun;
    end = Smaller(begin + kConvRun, a.T);
  }
  static int64_t Runs(int64_t T) { return (T + kConvRun - 1) / kConvRun; }
};

// How many tokens back t may look.
template <class T>
int64_t Reach(const CausalConvArgs<T>& a, int64_t b, int64_t t) {
  return a.start.data == nullptr ? a.W - 1 : Smaller(a.W - 1, t - a.start.data[b * a.T + t]);
}

// The rows of a block at t: in[W - 1 + r] is token t + r. Edge blocks, which touch the state or the
// start of a document, are staged in fp32 and look up how far each row reaches.
template <class P>
struct ConvWindow {
  const P* in[kWindow];
  int32_t reach[kWindow];
};

template <class T>
bool IsEdge(const CausalConvArgs<T>& a, int64_t b, int64_t t, int64_t rows) {
  if (t < a.W - 1) return true;
  for (int64_t r = 0; r < rows; ++r)
    if (Reach(a, b, t + r) < a.W - 1) return true;
  return false;
}

template <class T>
void PointWindow(const CausalConvArgs<T>& a, const ConvTask& task, int64_t t, int64_t rows,
                 ConvWindow<T>* window) {
  for (int64_t i = 0; i < rows + a.W - 1; ++i)
    window->in[i] = a.x.data + (task.b * a.T + t + i - (a.W - 1)) * a.x.stride + task.c;
}

template <class T>
void StageWindow(const CausalConvArgs<T>& a, const ConvTask& task, int64_t t, int64_t rows,
                 float* stage, ConvWindow<float>* window) {
  for (int64_t i = 0; i < rows + a.W - 1; ++i) {
    const int64_t token = t + i - (a.W - 1);
    float* row = stage + i * kConvColumns;
    window->in[i] = row;
    if (token >= 0) {
      LoadRows(a.x.data + (task.b * a.T + token) * a.x.stride + task.c, 0, 1, task.width, row, 0);
    } else if (a.state.data != nullptr) {
      const int64_t at = task.b * (a.W - 1) + a.W - 1 + token;
      LoadRows(a.state.data + at * a.C + task.c, 0, 1, task.width, row, 0);
    } else {
      FillZero(row, task.width);
    }
  }
  for (int64_t r = 0; r < rows; ++r)
    window->reach[r] = static_cast<int32_t>(Reach(a, task.b, t + r));
}

// The task's taps as rows [W, kConvColumns], the oldest first, then its bias.
template <class T>
void LoadTaps(const CausalConvArgs<T>& a, const ConvTask& task, float* taps) {
  for (int64_t j = 0; j < a.W; ++j)
    for (int64_t i = 0; i < task.width; ++i)
      taps[j * kConvColumns + i] = a.weight.data[(task.c + i) * a.W + j];
  for (int64_t i = 0; i < task.width; ++i)
    taps[a.W * kConvColumns + i] = a.bias.data == nullptr ? 0 : a.bias.data[task.c + i];
}

// Calls f with the width at hand as a constant.
template <int kW>
struct ConvWidth {
  static constexpr int value = kW;
};
template <class F>
void ByConvWidth(int64_t W, F&& f) {
  switch (W) {
    case 2:
      return f(ConvWidth<2>{});
    case 3:
      return f(ConvWidth<3>{});
    case 4:
      return f(ConvWidth<4>{});
    case 5:
      return f(ConvWidth<5>{});
    case 6:
      return f(ConvWidth<6>{});
    case 7:
      return f(ConvWidth<7>{});
    default:
      return f(ConvWidth<8>{});
  }
}

// u of token r of a window, at the channels from i on.
template <int kW, class P>
inline Vec Convolved(const ConvWindow<P>& window, const Vec* taps, int64_t r, int64_t i, int n,
                     int reach) {
  Vec u = taps[kW];
#pragma GCC unroll 8
  for (int l = kW - 1; l >= 0; --l)
    if (l <= reach) u += taps[kW - 1 - l] * LoadPart(window.in[r + kW - 1 - l] + i, n);
  return u;
}

}  // namespace
}  // namespace tessera::TESSERA_ISA

#endif  // TESSERA_KERNELS_CONVOLUTION_CONV_TILE_H_
