#ifndef TESSERA_OPS_HOST_H_
#define TESSERA_OPS_HOST_H_

#include <vector>

#include "ops/context.h"

// Values that the host reads and writes in the middle of a pass, for blocks whose shapes depend on
// values (Traits::reads_values): such a pass is no graph on a GPU. As all ops: see ops/ops.h.

namespace tessera {

// An fp32 tensor's elements, when the work before is done. On the meta device `on_meta` for each:
// the answer that makes the block do most.
std::vector<float> HostValues(Context& ctx, const Tensor& x, float on_meta);
// int32 of `shape`.
Tensor FromHost(Context& ctx, const Shape& shape, const std::vector<int32_t>& values);

}  // namespace tessera

#endif  // TESSERA_OPS_HOST_H_
