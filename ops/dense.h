#ifndef TESSERA_OPS_DENSE_H_
#define TESSERA_OPS_DENSE_H_

#include "ops/context.h"

namespace tessera {

// The elements of a parameter or a state, null if it is undefined. Kernels read these, and write
// their gradients, row after row without a stride, which a part of a wider one is not.
inline float* Dense(const Var& v) {
  TESSERA_CHECK(!v.defined() || v.value().contiguous(),
                "a parameter or state of %s is part of a wider one, with rows %ld apart",
                v.shape().ToString().c_str(), v.stride());
  return v.data<float>();
}

}  // namespace tessera

#endif  // TESSERA_OPS_DENSE_H_
