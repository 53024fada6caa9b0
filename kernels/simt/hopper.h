#ifndef TESSERA_KERNELS_SIMT_HOPPER_H_
#define TESSERA_KERNELS_SIMT_HOPPER_H_

#include <cstdint>
#include <map>
#include <source_location>
#include <vector>

#include "core/dtype.h"
#include "kernels/simt/block.h"

// What sm_90 adds, as kernels/cuda/device.h describes it: barriers in shared memory that count
// bytes as well as threads, tiles that a copy engine brings, and products of a warpgroup that run
// beside its threads. All of it happens as late as it may: a tile arrives when somebody waits for
// its barrier, and until then its place is poisoned; a product reads its operands when its threads
// wait for it, and until then its sums are NaN. The order between the two ways to shared memory
// (fence_proxy_async) is not checked.

namespace tessera::simt {

// rows x columns of bf16, `groups` of them; boxes of box_rows x 64 are copied.
struct alignas(64) TensorMap {
  const bf16* data;
  int64_t columns, rows, groups, row_stride, group_stride;
  int box_rows;
};
TensorMap MakeTensorMap(const bf16* data, int64_t columns, int64_t rows, int64_t groups,
                        int64_t row_stride, int64_t group_stride, int box_rows);

// A barrier in shared memory (PTX ISA, mbarrier): a phase is over when `pending` arrivals and
// `bytes` of copies are no longer expected.
struct Mbarrier {
  struct Tile {
    void* to;
    TensorMap map;
    int64_t column, row, group;
  };
  int arrivals = 0, pending = 0;
  int64_t bytes = 0;
  uint32_t phase = 0;
  std::vector<Tile> tiles;   // on their way
  std::vector<int> waiting;  // threads
};
void InitBarrier(uint64_t* barrier, int arrivals, std::source_location at);
void Arrive(uint64_t* barrier, int64_t bytes, std::source_location at);
void WaitBarrier(uint64_t* barrier, uint32_t parity, std::source_location at);
void LoadTile(void* to, const TensorMap& map, int64_t column, int64_t row, int64_t group,
              uint64_t* barrier, std::source_location at);

// A product of a warpgroup that its thread has issued and not waited for.
struct WarpgroupProduct {
  uint64_t a, b;  // descriptors
  bool a_by_k, b_by_k;
  int columns;
  float* sums;                // [columns / 2]
  std::vector<float> before;  // the sums when the first product of several on them was issued
  int64_t group;
};
uint32_t SharedAddress(const void* p);
void IssueProduct(float* sums, int columns, uint64_t a, uint64_t b, bool a_by_k, bool b_by_k,
                  std::source_location at);
// The thread is done with these sums: products may have them.
void FenceSums(const float* sums);
void CommitProducts();
void WaitProducts(int64_t groups_in_flight, std::source_location at);

}  // namespace tessera::simt

#endif  // TESSERA_KERNELS_SIMT_HOPPER_H_
