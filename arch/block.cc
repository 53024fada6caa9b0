#include "arch/block.h"

namespace tessera {

int64_t State::bytes() const {
  int64_t bytes = 0;
  for (const auto& [name, var] : entries_)
    if (var.defined()) bytes += var.value().bytes();
  return bytes;
}

}  // namespace tessera
