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

template <class T>
int64_t SlotOf(const ExpertActivationArgs<T>& a, int64_t r) {
  return a.slot_of ? a.slot_of.data[r] : r;
}
template <class T>
float WeightOf(const ExpertActivationArgs<T>& a, int64_t r) {
  return a.weight ? a.weight.data[SlotOf(a, r)] : 1;
}

template <class T>
void ExpertActivation(const ExpertActivationArgs<T>& a) {
  With(a.f, a.gating, [&](auto function, auto gate) {
    ParallelRanges(a.rows, RowGrain(a.F), [&](int64_t begin, int64_t end) {
      if (a.used && end > *a.used.data) end = *a.used.data;
      for (int64_t r = begin; r < end; ++r)
        ActivateRow<decltype(function), decltype(gate)>(a.x.Row(r), a.F, WeightOf(a, r),
                                                        a.y.Row(r));
    });
  });
}

template <class T>
void ExpertActivationGrad(const Gradient<ExpertActivationArgs<T>>& g) {
  const ExpertActivationArgs<T>&a = g.forward, &d = g.d;
  With(a.f, a.gating, [&](auto function, auto gate) {
    ParallelRanges(a.rows, RowGrain(a.F), [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        float dot = 0;
        if (!a.used || r < *a.used.data)
          dot = GradRow<decltype(function), decltype(gate)>(
              a.x.Row(r), d.y.Row(r), a.F, WeightOf(a, r), d.x ? d.x.Row(r) : nullptr, d.x.mode);
        if (!d.weight) continue;
        float* dw = d.weight.data + SlotOf(a, r);
        *dw = d.weight.mode == Grad::kAccumulate ? *dw + dot : dot;
      }
    });
  });
}

}  // namespace

TESSERA_KERNEL_WITH_GRAD(ExpertActivation)

}  // namespace tessera::TESSERA_ISA
