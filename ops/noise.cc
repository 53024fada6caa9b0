#include "ops/noise.h"

#include "core/rng.h"
#include "ops/apply.h"

namespace tessera {
namespace {

NoiseKey KeyOf(const Context& ctx, const std::string& name) {
  const uint64_t key = Rng(ctx.noise_seed, ctx.path() + "/" + name).key();
  return {{static_cast<uint32_t>(key), static_cast<uint32_t>(key >> 32)}};
}

}  // namespace

Tensor Noise(Context& ctx, const std::string& name, NoiseKind kind, const Shape& shape) {
  const int64_t C = shape[-1];
  const NoiseArgs<float> args{
      .rows = shape.elements() / C, .C = C, .key = KeyOf(ctx, name), .kind = kind};
  return Apply(ctx, args, {}, {ctx.noise_step})[0].value().Reshape(shape);
}

Var Dropout(Context& ctx, const std::string& name, const Var& x, float rate) {
  TESSERA_CHECK(rate >= 0 && rate < 1, "a dropout of %g", static_cast<double>(rate));
  if (!ctx.training || rate == 0) return x;
  TESSERA_CHECK(ctx.device() == Device::kMeta || ctx.noise_step.defined(),
                "%s drops out without Context::noise_step: every step would drop the same",
                ctx.path().c_str());
  return ByDType(x.dtype(), [&](auto tag) {
    const DropoutArgs<decltype(tag)> args{
        .rows = x.rows(), .C = x.dim(-1), .key = KeyOf(ctx, name), .rate = rate};
    return Apply(ctx, args, {x}, {ctx.noise_step})[0].WithShape(x.shape());
  });
}

}  // namespace tessera
