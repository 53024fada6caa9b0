#ifndef TESSERA_OPS_CONTEXT_H_
#define TESSERA_OPS_CONTEXT_H_

#include <algorithm>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "core/tensor.h"
#include "kernels/cost.h"
#include "kernels/dispatch.h"
#include "ops/grad_node.h"

// How a model runs: where (device, arena), what is counted, and, where gradients are wanted, the
// tape. Ops (ops/ops.h) are functions of a Context and Vars; blocks are written with ops and know
// nothing of any of this.

namespace tessera {

// A value in a computation, and the handle of its gradient.
class Var {
 public:
  Var() = default;
  explicit Var(Tensor value, GradRef grad = nullptr)
      : value_(std::move(value)), grad_(std::move(grad)) {}
  bool defined() const { return value_.defined(); }
  const Tensor& value() const { return value_; }
  const GradRef& grad() const { return grad_; }
  const Shape& shape() const { return value_.shape(); }
  DType dtype() const { return value_.dtype(); }
  int64_t dim(int i) const { return value_.dim(i); }
  int64_t rows() const { return value_.rows(); }
  int64_t stride() const { return value_.stride(); }
  template <class T>
  T* data() const {
    return value_.data<T>();
  }
  // The same rows counted another way: leading sizes change, the last one stays.
  Var WithShape(const Shape& shape) const {
    TESSERA_CHECK(shape[-1] == dim(-1), "rows of %s as %s", value_.shape().ToString().c_str(),
                  shape.ToString().c_str());
    return Var(value_.Reshape(shape), grad_);
  }
  // The same value, as a constant.
  Var Detach() const { return Var(value_); }

 private:
  Tensor value_;
  GradRef grad_;
};

// A value whose gradient is wanted: a parameter, or an input under test.
Var Leaf(Tensor value);

// Where a vjp writes one gradient, and whether it overwrites or adds.
struct GradSlot {
  Tensor tensor;  // undefined if the gradient is not wanted: data() is null
  Grad mode = Grad::kOverwrite;
  template <class T>
  T* data() const {
    return tensor.data<T>();
  }
  int64_t stride() const { return tensor.stride(); }
  bool wanted() const { return tensor.defined(); }
};

enum class Phase : uint8_t { kForward, kBackward, kRecompute };

// The cost of a place in the model (a layer's path), by phase, and of each op there.
struct ScopeCost {
  Cost forward, backward, recompute;
  std::map<std::string, Cost> forward_by_op;
  // What recorded forward passes through this place left in the arena for the backward pass, the
  // parts of the place included.
  int64_t kept_bytes = 0;
};

// What a run did, by layer path. A pure function of shapes: the meta device and a real step fill it
// alike.
class CostCounter {
 public:
  ScopeCost* At(const std::string& path) { return &scopes_[path]; }
  const std::map<std::string, ScopeCost>& scopes() const { return scopes_; }
  ScopeCost Total() const;
  void Clear();  // zero everywhere; pointers stay valid

 private:
  std::map<std::string, ScopeCost> scopes_;
};

// A scalar that joined the training objective beside its main loss (Context::AddLoss).
struct ExtraLoss {
  double coefficient;
  Tensor value;  // one fp32
};

// What blocks report by their path: "layers[2].moe" / "load" -> fp32 tensor. Read after the pass
// that made it.
using Metrics = std::map<std::pair<std::string, std::string>, Tensor>;

class Context {
 public:
  Context(Device device, Arena* arena) : device_(device), arena_(arena) {}

  Device device() const { return device_; }
  Arena* arena() const { return arena_; }

  // The type of activations: fp32 or bf16. Parameters, statistics and states are fp32 always.
  DType compute = DType::kF32;
  // Training draws what only training does: expert capacity, for one.
  bool training = false;
  // [B,T] int32, what embeddings of the position read: a token's place in its document, or wherever
  // else it is to stand.
  Tensor position;
  // [B,T] int32, what every op over time reads: the row of this chunk at which the token's document
  // begins; -n where that is n rows before the chunk, of which states and caches hold what there
  // is. Row t begins a document where start[t] = t, and shares that of row t - 1 else. So a
  // document is told apart by rows alone: tokens may be gathered, pooled or stand at any position.
  // Undefined: no document begins in this chunk; a Model makes it of the positions
  // (ops/sequence.h).
  Tensor start;
  // Multiplies the objective, one fp32: a micro-batch's share of the step. Extra losses are
  // multiplied by it. Undefined: 1.
  Tensor loss_scale;
  // Of the run's random numbers (ops/noise.h): its seed, and the micro-batch of training, int32
  // [1]; undefined: the first, and nothing may drop out, since each would drop the same.
  uint64_t noise_seed = 0;
  Tensor noise_step;
  // What blocks leave for later blocks of the same pass to read. A block knows it by its own name,
  // the port; whoever joins the blocks (arch/stack.h) gives each port its address on the board.
  using Vars = std::vector<Var>;
  struct Ports {
    std::map<std::string, std::string> reads, leaves;  // port -> address
  };
  const Ports* ports = nullptr;  // of the block that runs now
  std::map<std::string, Vars> board;
  const Vars& Read(const std::string& port) const;
  bool Wanted(const std::string& port) const;  // a later block reads what this one leaves there
  void Leave(const std::string& port, Vars values);  // dropped where nobody wants it
  // What changes a state in place, and so waits until all blocks of the pass have read it.
  std::vector<std::function<void(Context&)>> at_end;
  void EndPass();                                            // does it
  CostCounter* counter = nullptr;                            // may be null
  Metrics* metrics = nullptr;                                // may be null
  std::map<std::string, ExtraLoss>* extra_losses = nullptr;  // may be null
  // On the meta device: why a layer's ops cannot run on a GPU, by its path. May be null.
  std::map<std::string, std::string>* cuda_limits = nullptr;

  // Contents undefined.
  Tensor New(const Shape& shape, DType dtype) { return Tensor(arena_, shape, dtype); }
  Tensor Zeros(const Shape& shape, DType dtype);

  // Runs a kernel and counts its cost.
  template <class Args>
  void Run(const Args& args) {
    Count(Args::kName, args.cost());
    if constexpr (requires { args.CudaLimit(); })
      if (cuda_limits != nullptr && !args.CudaLimit().empty())
        cuda_limits->emplace(path_, args.CudaLimit());
    if constexpr (requires { args.CudaScratch(); })
      if (device_ == Device::kMeta) cuda_scratch_ = std::max(cuda_scratch_, args.CudaScratch());
    Dispatch(device_, args);
  }

  // On the meta device: the most scratch memory that a CUDA kernel asked for so far.
  int64_t cuda_scratch_bytes() const { return 4 * cuda_scratch_; }

  // --- The tape ---
  bool recording() const { return recording_; }
  void SetRecording(bool on) { recording_ = on; }

  // The result of an op: with a gradient if the tape records and any input has one. The vjp gets
  // the gradient of the output and writes those of the inputs through GradOf; it never runs if no
  // gradient arrives.
  using Vjp = std::function<void(Context&, const Tensor&)>;
  using Vjps = std::function<void(Context&, std::span<const Tensor>)>;
  Var Result(Tensor value, std::initializer_list<Var> inputs, Vjp vjp);
  // The same for several outputs; a gradient that did not arrive is undefined.
  std::vector<Var> Results(std::vector<Tensor> values, const std::vector<Var>& inputs, Vjps vjps);

  // For a vjp: the place of an input's gradient. Each call counts as one contribution, so write
  // what you ask for. A vjp that was given one Var for two of its inputs, or Vars that are parts of
  // one another, never gets two places that overlap: the second has memory of its own, which is
  // added when the vjp is done.
  GradSlot GradOf(const Var& v) { return GradOf(v.grad()); }
  GradSlot GradOf(const GradRef& ref);
  // For a vjp: hands a finished gradient on when the vjp is done, without a copy where it is the
  // first to arrive and is given to one input only.
  void GiveGrad(const GradRef& ref, const Tensor& grad);
  // For a vjp of an op whose outputs are views of its input: contributions to some columns of its
  // gradient make the others zero, so that it can be read.
  void CompleteGrad(const GradRef& ref);

  // For an op whose derivative is neither of the above: runs in the backward pass, after all that
  // was recorded later.
  void Record(std::function<void(Context&)> run);

  // Seeds d(objective)/d(output), a sum where an output is named twice, and runs the tape
  // backwards, freeing as it goes. Seeds are read only.
  void Backward(const Var& output, const Tensor& seed);
  void Backward(std::span<const std::pair<Var, Tensor>> seeds);

  // ys = f(xs) without keeping what f's derivatives need: the backward pass runs f again. f may use
  // parameters freely; it must do the same both times. Undefined xs stay undefined.
  Vars Recompute(const Vars& xs, const std::function<Vars(Context&, const Vars&)>& f);

  // --- Where we are ---
  // Enters a part of the model for the life of the object: costs and metrics go under its path,
  // where a name stands behind a dot but for one in brackets: layers[0].parallel[1].gla.
  class Scope {
   public:
    Scope(Context& ctx, const std::string& name);
    ~Scope();
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    Context& ctx_;
    std::string path_;
    ScopeCost* cost_;
    int64_t live_bytes_;
  };
  const std::string& path() const { return path_; }
  void Metric(const std::string& name, const Tensor& value);
  // Adds coefficient times a scalar, one fp32, to the objective, and reports it. Its gradient joins
  // by itself; an op that adds the gradient of its loss to another one gives a constant here.
  void AddLoss(const std::string& name, double coefficient, const Var& value);

 private:
  struct Entry {
    std::function<void(Context&)> run;
    std::string path;
    ScopeCost* cost;
  };
  // What the vjp that runs now was given to write, and gave to be added when it is done.
  struct Claim {
    const GradNode* whole;
    ColumnRange columns;
  };
  struct Running {
    std::vector<Claim> claims;
    std::vector<std::pair<GradRef, Tensor>> gifts;
  };
  enum class Memory : uint8_t { kGiven, kShared };  // whether a gradient's memory may be kept
  void Count(const char* op, const Cost& cost);
  void RunTape();
  void AddGifts(const Running& running);
  GradSlot PlaceOf(GradNode& node);
  void AddGrad(GradNode& node, const Tensor& grad, Memory memory);

  Device device_;
  Arena* arena_;
  int64_t cuda_scratch_ = 0;
  bool recording_ = false;
  Phase phase_ = Phase::kForward;
  std::vector<Entry> tape_;
  Running* running_ = nullptr;                     // null: no vjp runs
  std::span<const std::pair<Var, Tensor>> seeds_;  // of the backward pass that runs
  std::string path_;
  ScopeCost* cost_ = nullptr;
};

}  // namespace tessera

#endif  // TESSERA_OPS_CONTEXT_H_
