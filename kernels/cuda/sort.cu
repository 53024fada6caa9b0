#include <bit>
#include <cub/device/device_radix_sort.cuh>

#include "kernels/cuda/runtime.h"

namespace tessera::cuda {
namespace {

constexpr int kThreads = 256;

__global__ void __launch_bounds__(kThreads) Count(int32_t* rows, int64_t count) {
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i < count) rows[i] = static_cast<int32_t>(i);
}

size_t Padded(size_t bytes) { return (bytes + 255) / 256 * 256; }

// With a null `temporary` only tells its size.
void Sort(void* temporary, size_t* bytes, const int32_t* keys, int32_t* sorted, const int32_t* in,
          int32_t* rows, int64_t count, int bits) {
  Check(cub::DeviceRadixSort::SortPairs(temporary, *bytes, keys, sorted, in, rows, count, 0, bits,
                                        Stream()),
        "a sort of " + std::to_string(count) + " rows");
}
size_t TemporaryBytes(int64_t count) {
  size_t bytes = 0;
  Sort(nullptr, &bytes, nullptr, nullptr, nullptr, nullptr, count, 31);
  return bytes;
}

}  // namespace

size_t SortBytes(int64_t count) {
  return Padded(static_cast<size_t>(count) * sizeof(int32_t)) + TemporaryBytes(count);
}

void SortRows(const int32_t* keys, int64_t count, int64_t end, int32_t* sorted, int32_t* rows,
              void* scratch) {
  auto* const in = static_cast<int32_t*>(scratch);
  const size_t first = Padded(static_cast<size_t>(count) * sizeof(int32_t));
  const auto blocks = static_cast<unsigned>((count + kThreads - 1) / kThreads);
  Count<<<blocks, kThreads, 0, Stream()>>>(in, count);
  CheckLaunch(cudaGetLastError(), dim3{blocks}, dim3{kThreads}, 0);
  size_t bytes = TemporaryBytes(count);
  Sort(static_cast<char*>(scratch) + first, &bytes, keys, sorted, in, rows, count,
       std::bit_width(static_cast<uint64_t>(end)));
}

}  // namespace tessera::cuda
