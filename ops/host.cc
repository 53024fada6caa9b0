#include "ops/host.h"

#include "kernels/device/memory.h"

namespace tessera {

std::vector<float> HostValues(Context& ctx, const Tensor& x, float on_meta) {
  TESSERA_CHECK(x.dtype() == DType::kF32 && x.contiguous(), "the host reads %s %s", Name(x.dtype()),
                x.shape().ToString().c_str());
  std::vector<float> values(static_cast<size_t>(x.elements()), on_meta);
  Download(ctx.device(), values.data(), x.raw(), x.bytes());
  return values;
}

Tensor FromHost(Context& ctx, const Shape& shape, const std::vector<int32_t>& values) {
  const Tensor t = ctx.New(shape, DType::kI32);
  TESSERA_CHECK(static_cast<int64_t>(values.size()) == t.elements(), "%zu values for %s",
                values.size(), shape.ToString().c_str());
  Upload(ctx.device(), t.raw(), values.data(), t.bytes());
  return t;
}

}  // namespace tessera
