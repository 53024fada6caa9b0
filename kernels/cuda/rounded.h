#ifndef TESSERA_KERNELS_CUDA_ROUNDED_H_
#define TESSERA_KERNELS_CUDA_ROUNDED_H_

#include "kernels/cuda/vector.h"
#include "kernels/product/matmul.h"

// The copy of a factor that tensor cores cannot read where it lies (Stored in
// kernels/product/matmul.h).

namespace tessera::TESSERA_DEVICE {
namespace {

// Rows of y, `pitch` apart, from those of x; from row *end on there is nothing to read.
template <class T>
struct RoundBody {
  const T* x;
  int64_t stride;
  const int32_t *rows, *end;
  bf16* y;
  int64_t pitch;
  template <int N>
  __device__ void At(int64_t row, int64_t column) const {
    if (end != nullptr && row >= *end) return;
    float v[N];
    Load(x + (rows != nullptr ? rows[row] : row) * stride + column, v);
    Store(y + row * pitch + column, v);
  }
};

// Makes a matrix ready at `to`, which has room for CopyFloats(). `end`, if any, is on the device.
inline void MakeReady(Stored* s, float* to, const int32_t* end = nullptr) {
  if (s->Ready()) return;
  auto* const y = reinterpret_cast<bf16*>(to);
  const Factor& f = s->factor;
  if (f.dtype == DType::kF32)
    ForElements<float>(
        s->rows, s->columns, s->Aligned16(),
        RoundBody<float>{static_cast<const float*>(f.data), f.stride, f.rows, end, y, s->Pitch()});
  else
    ForElements<bf16>(
        s->rows, s->columns, s->Aligned16(),
        RoundBody<bf16>{static_cast<const bf16*>(f.data), f.stride, f.rows, end, y, s->Pitch()});
  s->factor = {.data = y, .dtype = DType::kBF16, .stride = s->Pitch(), .order = f.order};
}

}  // namespace
}  // namespace tessera::TESSERA_DEVICE

#endif  // TESSERA_KERNELS_CUDA_ROUNDED_H_
