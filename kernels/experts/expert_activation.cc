#include "kernels/experts/expert_activation.h"

#include "core/parallel.h"
#include "kernels/cpu/functions.h"
#include "kernels/cpu/rows.h"

namespace tessera::TESSERA_ISA {
namespace {

// f(function, gated), both known to the compiler, so that the loops over channels hold no choice.
struct Plain {
  static constexpr bool kGated = false;
};
struct WithGate {
  static constexpr bool kGated = true;
};
template <class Use>
void With(Activation f, Gating gating, Use&& use) {
  With(f, [&](auto function) {
    gating == Gating::kGated ? use(function, WithGate{}) : use(function, Plain{});
  });
}

template <class Function, class Gate, class T>
void ActivateRow(const T* x, int64_t F, float w, T* y) {
  ForLanes(F, [&](int64_t i, int n) {
    Vec v = Function::Value(Load(x + i, n)) * w;
    if constexpr (Gate::kGated) v *= Load(x + F + i, n);
    Store(y + i, v, n);
  });
}

// Returns <dy, f(x)>.
template <class Function, class Gate, class T>
float GradRow(const T* x, const T* dy, int64_t F, float w, T* dx, Grad mode) {
  return SumOver(F, [&](int64_t i, int n) {
    const Tangent f = Function::At(Load(x + i, n));
    const Vec g = Load(dy + i, n);
    if constexpr (Gate::kGated) {
      const Vec up = Load(x + F + i, n);
      if (dx != nullptr) {
        PutGrad(dx + i, g * w * up * f.slope, n, mode);
        PutGrad(dx + F + i, g * w * f.value, n, mode);
      }
      return KeepFirst(g * f.value * up, n);
    } else {
      if (dx != nullptr) PutGrad(dx + i, g * w * f.slope, n, mode);
      return KeepFirst(g * f.value, n);
    }
  });
}

template <class Args>
int64_t SlotOf(const Args& a, int64_t r) {
  return a.slot_of ? a.slot_of[r] : r;
}
template <class Args>
float WeightOf(const Args& a, int64_t r) {
  return a.weights == RowWeights::kGiven ? a.weight[SlotOf(a, r)] : 1;
}

template <class T>
void ExpertActivation(const ExpertActivationArgs<T>& a) {
  With(a.f, a.gating, [&](auto function, auto gate) {
    ParallelRanges(a.rows, RowGrain(a.F), [&](int64_t begin, int64_t end) {
      if (a.used && end > *a.used) end = *a.used;
      for (int64_t r = begin; r < end; ++r)
        ActivateRow<decltype(function), decltype(gate)>(a.x + r * a.x_stride, a.F, WeightOf(a, r),
                                                        a.y + r * a.y_stride);
    });
  });
}

template <class T>
void ExpertActivationGrad(const ExpertActivationGradArgs<T>& a) {
  With(a.f, a.gating, [&](auto function, auto gate) {
    ParallelRanges(a.rows, RowGrain(a.F), [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        float dot = 0;
        if (!a.used || r < *a.used)
          dot = GradRow<decltype(function), decltype(gate)>(
              a.x + r * a.x_stride, a.dy + r * a.dy_stride, a.F, WeightOf(a, r),
              a.dx ? a.dx + r * a.dx_stride : nullptr, a.dx_mode);
        if (a.dweight == nullptr) continue;
        float* dw = a.dweight + SlotOf(a, r);
        *dw = a.dweight_mode == Grad::kAccumulate ? *dw + dot : dot;
      }
    });
  });
}

}  // namespace

TESSERA_KERNEL(ExpertActivation)
TESSERA_KERNEL(ExpertActivationGrad)

}  // namespace tessera::TESSERA_ISA
