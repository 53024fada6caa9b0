#include "data/batches.h"

#include <cstddef>

namespace tessera {

std::vector<int32_t> Positions(const Batch& batch) {
  if (!batch.position.empty()) return batch.position;
  std::vector<int32_t> position(static_cast<size_t>(batch.B * batch.T));
  for (size_t i = 0; i < position.size(); ++i)
    position[i] = static_cast<int32_t>(i % static_cast<size_t>(batch.T));
  return position;
}

}  // namespace tessera
