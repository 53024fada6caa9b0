#ifndef TESSERA_OPS_APPLY_H_
#define TESSERA_OPS_APPLY_H_

#include <string>
#include <utility>
#include <vector>

#include "kernels/view.h"
#include "ops/context.h"

// Apply(ctx, args, inputs, indices, outputs) is an op whose kernel takes `args` (kernels/view.h):
// sizes are set by the caller, everything else here. Inputs stand in the order of the list, an
// undefined Var for one that is absent; so do indices, int32 tensors without a gradient. The first
// `outputs` outputs of the list are made and returned. A tensor of another shape or type than the
// list's is a programmer's mistake, named with both.

namespace tessera {
namespace internal {

// Checks a tensor against its row in a list; the rank may differ, rows and columns may not.
void CheckTensor(const char* op, const char* name, const Tensor& t, Dims want, DType dtype,
                 unsigned use);
Shape ShapeOf(Dims dims);

// Walks a list and gives each view its tensor.
class Bind {
 public:
  Bind(Context& ctx, const char* op, const std::vector<Var>& inputs,
       const std::vector<Tensor>& indices, size_t outputs)
      : ctx_(ctx), op_(op), inputs_(inputs), indices_(indices), wanted_(outputs) {}

  template <class T>
  void In(const char* name, View<T>& view, Dims dims, unsigned use = kPlain) {
    TESSERA_CHECK(in_ < inputs_.size(), "%s has no input for %s", op_, name);
    const Tensor& t = inputs_[in_++].value();
    if (!Present(name, t, use)) return;
    CheckTensor(op_, name, t, dims, kDTypeOf<T>, use);
    TESSERA_CHECK((use & kConstant) == 0 || inputs_[in_ - 1].grad() == nullptr,
                  "%s has no derivative for %s", op_, name);
    view = {t.data<T>(), t.stride()};
    if ((use & kUnread) == 0) Hold(t);
  }
  void Index(const char* name, View<const int32_t>& view, Dims dims, unsigned use = kPlain) {
    TESSERA_CHECK(index_ < indices_.size(), "%s has no tensor for %s", op_, name);
    const Tensor& t = indices_[index_++];
    if (!Present(name, t, use)) return;
    CheckTensor(op_, name, t, dims, DType::kI32, use | kDense);
    view = {t.data<int32_t>(), t.stride()};
    Hold(t);
  }
  template <class T>
  void Out(const char*, View<T>& view, Dims dims, unsigned use = kPlain) {
    if (outputs.size() == wanted_) return;
    const Tensor t = ctx_.New(ShapeOf(dims), kDTypeOf<T>);
    view = {t.data<T>(), t.stride()};
    outputs.push_back(t);
    if ((use & kReread) != 0) Hold(t);
  }
  // Made for the derivative alone, which finds it as the forward pass left it.
  template <class T>
  void Kept(const char*, View<T>& view, Dims dims) {
    const Shape shape = ShapeOf(dims);
    if (!ctx_.recording() || shape.elements() == 0) return;
    const Tensor t = ctx_.New(shape, kDTypeOf<T>);
    view = {t.data<T>(), t.stride()};
    held.push_back(t);
  }
  // Memory of the forward pass alone, for as long as this object lives.
  template <class T>
  void Workspace(const char*, View<T>& view, Dims dims) {
    const Shape shape = ShapeOf(dims);
    if (shape.elements() == 0) return;
    workspaces_.push_back(ctx_.New(shape, kDTypeOf<T>));
    view = {workspaces_.back().data<T>(), workspaces_.back().stride()};
  }
  template <class T>
  void GradWorkspace(const char*, View<T>&, Dims) {}
  void Finish() const;

  std::vector<Tensor> outputs, held;

 private:
  bool Present(const char* name, const Tensor& t, unsigned use) const;
  void Hold(const Tensor& t) {
    if (ctx_.recording()) held.push_back(t);
  }

  Context& ctx_;
  const char* op_;
  const std::vector<Var>& inputs_;
  const std::vector<Tensor>& indices_;
  std::vector<Tensor> workspaces_;
  size_t wanted_, in_ = 0, index_ = 0;
};

// Leaves in the forward arguments only what the tape keeps.
struct Forget {
  template <class T>
  void In(const char*, View<T>& view, Dims, unsigned use = kPlain) {
    if ((use & kUnread) != 0) view.data = nullptr;
  }
  void Index(const char*, View<const int32_t>&, Dims, unsigned = kPlain) {}
  template <class T>
  void Out(const char*, View<T>& view, Dims, unsigned use = kPlain) {
    if ((use & kReread) == 0) view.data = nullptr;
  }
  template <class T>
  void Kept(const char*, View<T>&, Dims) {}
  template <class T>
  void Workspace(const char*, View<T>& view, Dims) {
    view.data = nullptr;
  }
  template <class T>
  void GradWorkspace(const char*, View<T>&, Dims) {}
};

// Gives the gradients of a list their places.
class Place {
 public:
  Place(Context& ctx, const char* op, const std::vector<GradRef>& to,
        std::span<const Tensor> arrived)
      : ctx_(ctx), op_(op), to_(to), arrived_(arrived) {}
  template <class T>
  void In(const char* name, View<T>& view, Dims, unsigned use = kPlain) {
    const GradRef& to = to_[in_++];
    view = {};
    if ((use & kConstant) != 0) return;
    const GradSlot slot = ctx_.GradOf(to);
    if (!slot.wanted()) return;
    TESSERA_CHECK((use & kDense) == 0 || slot.tensor.contiguous(),
                  "%s writes the gradient of %s without gaps", op_, name);
    view = {slot.data<T>(), slot.stride(), slot.mode};
  }
  void Index(const char*, View<const int32_t>& view, Dims, unsigned = kPlain) { view = {}; }
  template <class T>
  void Out(const char* name, View<T>& view, Dims, unsigned use = kPlain) {
    view = {};
    if (out_ == arrived_.size() || !arrived_[out_++].defined()) return;
    const Tensor& t = arrived_[out_ - 1];
    TESSERA_CHECK((use & kDense) == 0 || t.contiguous(), "%s reads the gradient of %s without gaps",
                  op_, name);
    view = {t.data<T>(), t.stride()};
  }
  template <class T>
  void Kept(const char*, View<T>& view, Dims) {
    view = {};
  }
  template <class T>
  void Workspace(const char*, View<T>& view, Dims) {
    view = {};
  }
  // The derivative's own memory, for as long as this object lives.
  template <class T>
  void GradWorkspace(const char*, View<T>& view, Dims dims) {
    const Shape shape = ShapeOf(dims);
    if (shape.elements() == 0) return;
    workspaces_.push_back(ctx_.New(shape, kDTypeOf<T>));
    view = {workspaces_.back().data<T>(), workspaces_.back().stride()};
  }

 private:
  Context& ctx_;
  const char* op_;
  const std::vector<GradRef>& to_;
  std::span<const Tensor> arrived_;
  std::vector<Tensor> workspaces_;
  size_t in_ = 0, out_ = 0;
};

// The outputs as Vars whose derivative is Gradient<Args>.
template <class Args>
std::vector<Var> Recorded(Context& ctx, const Args& args, const std::vector<Var>& inputs,
                          std::vector<Tensor> outputs, std::vector<Tensor> held) {
  std::vector<GradRef> to;
  for (const Var& v : inputs) to.push_back(v.grad());
  return ctx.Results(std::move(outputs), inputs,
                     [args, to = std::move(to), held = std::move(held)](
                         Context& ctx, std::span<const Tensor> arrived) {
                       Gradient<Args> gradient{args, args};
                       gradient.forward.Tensors(Forget{});
                       Place place(ctx, Args::kName, to, arrived);
                       gradient.d.Tensors(place);
                       ctx.Run(gradient);
                     });
}

}  // namespace internal

template <class Args>
std::vector<Var> Apply(Context& ctx, Args args, const std::vector<Var>& inputs,
                       const std::vector<Tensor>& indices = {}, size_t outputs = 1) {
  internal::Bind bind(ctx, Args::kName, inputs, indices, outputs);
  args.Tensors(bind);
  bind.Finish();
  ctx.Run(args);
  if constexpr (requires { Args::kGradName; }) {
    if (ctx.recording())
      return internal::Recorded(ctx, args, inputs, std::move(bind.outputs), std::move(bind.held));
  }
  std::vector<Var> out;
  out.reserve(outputs);
  for (Tensor& t : bind.outputs) out.emplace_back(std::move(t));
  return out;
}

}  // namespace tessera

#endif  // TESSERA_OPS_APPLY_H_
