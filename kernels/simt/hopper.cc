#include "kernels/simt/hopper.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "kernels/simt/sanitizer.h"
#include "kernels/simt/warp.h"

namespace tessera::simt {
namespace {

constexpr int kBoxColumns = 64, kRowBytes = 128;

// The 128-byte swizzle of shared memory: the address of 16 bytes, within 1024, is exchanged by the
// row of 128 that it is in (PTX ISA, "swizzling modes").
uint64_t Swizzled(uint64_t address) { return address ^ (address >> 7 & 7) << 4; }

Mbarrier& At(uint64_t* barrier, const Call& call) {
  auto& all = Block::Running().mbarriers();
  const auto found = all.find(barrier);
  if (found == all.end())
    Block::Running().Fail(absl::StrCat(Describe(call), ": a barrier that is not initialised"));
  return found->second;
}

int64_t BytesOf(const Mbarrier::Tile& tile) { return int64_t{kRowBytes} * tile.map.box_rows; }

// What lies outside of the matrix arrives as zeros.
void Copy(const Mbarrier::Tile& tile) {
  Block& block = Block::Running();
  Writes(tile.to, static_cast<size_t>(BytesOf(tile)));
  Unwatched unwatched;
  const TensorMap& m = tile.map;
  auto* const base = static_cast<unsigned char*>(block.shared().base());
  const auto first = static_cast<uint64_t>(static_cast<unsigned char*>(tile.to) - base);
  for (int r = 0; r < m.box_rows; ++r)
    for (int c = 0; c < kBoxColumns; ++c) {
      const int64_t row = tile.row + r, column = tile.column + c;
      const bool inside = row >= 0 && row < m.rows && column >= 0 && column < m.columns &&
                          tile.group >= 0 && tile.group < m.groups;
      const bf16 value =
          inside ? m.data[tile.group * m.group_stride + row * m.row_stride + column] : bf16(0.0f);
      const uint64_t chunk = first + static_cast<uint64_t>(r * kRowBytes + c / 8 * 16);
      std::memcpy(base + Swizzled(chunk) + c % 8 * 2, &value, 2);
    }
}

// Ends the phase if all that it expects is here or can be; wakes those who wait for that.
bool Complete(Block& block, uint64_t* barrier, Mbarrier& b) {
  int64_t bytes = 0;
  for (const auto& tile : b.tiles) bytes += BytesOf(tile);
  if (b.pending != 0 || bytes != b.bytes) return false;
  Acquire(barrier);
  for (const auto& tile : b.tiles) Copy(tile);
  Release(barrier);
  b.tiles.clear();
  b.bytes = 0;
  b.pending = b.arrivals;
  ++b.phase;
  for (const int thread : std::exchange(b.waiting, {}))
    block.Wake(thread / kWarpSize, 1u << thread % kWarpSize);
  return true;
}

uint64_t Bits(uint64_t descriptor, int first, int count) {
  return descriptor >> first & ((uint64_t{1} << count) - 1);
}

// Element (outer, k) of an operand; outer is the row of A or the column of B. PTX ISA, "matrix
// descriptor format" of wgmma: 128-byte swizzle, `stride` between groups of eight rows of 128 bytes
// and, where those are rows of k, `leading` between pieces of 64 outer indices.
float Operand(const unsigned char* base, uint64_t descriptor, bool by_k, int outer, int k) {
  const uint64_t start = Bits(descriptor, 0, 14) << 4, leading = Bits(descriptor, 16, 14) << 4,
                 stride = Bits(descriptor, 32, 14) << 4;
  const auto o = static_cast<uint64_t>(outer), i = static_cast<uint64_t>(k);
  const uint64_t address =
      by_k ? start + o / 64 * leading + i / 8 * stride + i % 8 * kRowBytes + o % 64 * 2
           : start + o / 8 * stride + o % 8 * kRowBytes + i * 2;
  bf16 value;
  std::memcpy(&value, base + (Swizzled(address & ~uint64_t{15}) | (address & 15)), 2);
  return static_cast<float>(value);
}

// The part of this thread: rows 16 w + l / 4 and that + 8 of warp w of the warpgroup, columns
// 8 j + 2 (l % 4) and the next (PTX ISA, "register fragments" of wgmma).
void Multiply(const WarpgroupProduct& p) {
  Block& block = Block::Running();
  const Thread& me = block.self();
  const auto* const base = static_cast<const unsigned char*>(block.shared().base());
  if (!p.before.empty()) std::copy(p.before.begin(), p.before.end(), p.sums);
  const int row = 16 * (me.warp % 4) + me.lane / 4, column = 2 * (me.lane % 4);
  float a[2][16];
  for (int r = 0; r < 2; ++r)
    for (int k = 0; k < 16; ++k) a[r][k] = Operand(base, p.a, p.a_by_k, row + 8 * r, k);
  for (int j = 0; j < p.columns / 8; ++j)
    for (int c = 0; c < 2; ++c)
      for (int k = 0; k < 16; ++k) {
        const float b = Operand(base, p.b, p.b_by_k, 8 * j + column + c, k);
        for (int r = 0; r < 2; ++r) p.sums[4 * j + 2 * r + c] += a[r][k] * b;
      }
}

}  // namespace

TensorMap MakeTensorMap(const bf16* data, int64_t columns, int64_t rows, int64_t groups,
                        int64_t row_stride, int64_t group_stride, int box_rows) {
  if (reinterpret_cast<uintptr_t>(data) % 16 != 0 || row_stride % 8 != 0 || group_stride % 8 != 0)
    throw Error("a tensor map of rows that are not aligned to 16 bytes");
  if (box_rows < 1 || box_rows > 256) throw Error("a tensor map of more than 256 rows at a time");
  return {data, columns, rows, groups, row_stride, group_stride, box_rows};
}

void InitBarrier(uint64_t* barrier, int arrivals, std::source_location at) {
  Unwatched unwatched;
  Block& block = Block::Running();
  if (!block.shared().Contains(barrier, sizeof *barrier))
    block.Fail(absl::StrCat(Describe({"mbarrier_init", at}), ": not in shared memory"));
  Mbarrier b;
  b.arrivals = b.pending = arrivals;
  block.mbarriers()[barrier] = b;
}

void Arrive(uint64_t* barrier, int64_t bytes, std::source_location at) {
  Unwatched unwatched;
  const Call call = {bytes > 0 ? "mbarrier_expect" : "mbarrier_arrive", at};
  Mbarrier& b = At(barrier, call);
  if (b.pending == 0)
    Block::Running().Fail(
        absl::StrCat(Describe(call), ": more arrivals than the ", b.arrivals, " of a phase"));
  Release(barrier);
  b.bytes += bytes;
  --b.pending;
  if (!b.waiting.empty() || b.tiles.empty()) Complete(Block::Running(), barrier, b);
}

void WaitBarrier(uint64_t* barrier, uint32_t parity, std::source_location at) {
  Unwatched unwatched;
  const Call call = {"mbarrier_wait", at};
  Block& block = Block::Running();
  for (;;) {
    Mbarrier& b = At(barrier, call);
    if ((b.phase & 1) != parity) break;
    if (Complete(block, barrier, b)) break;
    b.waiting.push_back(block.self().linear);
    block.Wait(call);
  }
  Acquire(barrier);
}

void LoadTile(void* to, const TensorMap& map, int64_t column, int64_t row, int64_t group,
              uint64_t* barrier, std::source_location at) {
  const Call call = {"tma_load", at};
  Unwatched unwatched;
  Block& block = Block::Running();
  Mbarrier& b = At(barrier, call);
  const Mbarrier::Tile tile = {to, map, column, row, group};
  if (!block.shared().Contains(to, static_cast<size_t>(BytesOf(tile))))
    block.Fail(absl::StrCat(Describe(call), ": a destination that is not within shared memory"));
  if (SharedAddress(to) % 1024 != 0)
    block.Fail(absl::StrCat(Describe(call), ": a destination that is not aligned to 1024 bytes"));
  Release(barrier);
  std::memset(to, 0xff, static_cast<size_t>(BytesOf(tile)));
  b.tiles.push_back(tile);
  if (!b.waiting.empty()) Complete(block, barrier, b);
}

uint32_t SharedAddress(const void* p) {
  Unwatched unwatched;
  return static_cast<uint32_t>(static_cast<const unsigned char*>(p) -
                               static_cast<const unsigned char*>(Block::Running().shared().base()));
}

void IssueProduct(float* sums, int columns, uint64_t a, uint64_t b, bool a_by_k, bool b_by_k,
                  std::source_location at) {
  const Call call = {"wgmma", at};
  Unwatched unwatched;
  Block& block = Block::Running();
  Thread& me = block.self();
  const int first = me.warp / 4 * 4;
  if (block.AllLanes(first + 3) != ~0u)
    block.Fail(absl::StrCat(Describe(call), " in a warpgroup of fewer than 128 threads"));
  for (const uint64_t descriptor : {a, b})
    if (Bits(descriptor, 62, 2) != 1)
      block.Fail(absl::StrCat(Describe(call), ": a descriptor of another swizzle than 128 bytes"));
  Meet(~0u, call, {}, nullptr);
  if (me.lane == 0) block.CountProduct(me.warp, call);
  WarpgroupProduct p = {a, b, a_by_k, b_by_k, columns, sums, {}, me.open_products};
  const bool follows = std::any_of(me.products.begin(), me.products.end(),
                                   [&](const WarpgroupProduct& o) { return o.sums == sums; });
  if (!follows) {
    if (std::find(me.fenced.begin(), me.fenced.end(), sums) == me.fenced.end())
      block.Fail(absl::StrCat(Describe(call),
                              ": its thread had the sums since the last wgmma_fence, if any"));
    p.before.assign(sums, sums + columns / 2);
    std::fill_n(sums, columns / 2, std::bit_cast<float>(~0u));
  }
  me.products.push_back(std::move(p));
}

void FenceSums(const float* sums) {
  Unwatched unwatched;
  std::vector<const float*>& fenced = Block::Running().self().fenced;
  if (std::find(fenced.begin(), fenced.end(), sums) == fenced.end()) fenced.push_back(sums);
}

void CommitProducts() {
  Unwatched unwatched;
  ++Block::Running().self().open_products;
}

// A warp waits as one: its lanes go on when the operands of all were read.
void WaitProducts(int64_t groups_in_flight, std::source_location at) {
  Unwatched unwatched;
  Thread& me = Block::Running().self();
  const int64_t done = me.open_products - groups_in_flight;
  auto end = me.products.begin();
  for (; end != me.products.end() && end->group < done; ++end) Multiply(*end);
  // Sums that later products go on with are as undefined as before.
  for (auto left = end; left != me.products.end(); ++left) {
    const bool first = std::none_of(end, left, [&](const auto& o) { return o.sums == left->sums; });
    if (!first || !left->before.empty()) continue;
    left->before.assign(left->sums, left->sums + left->columns / 2);
    std::fill_n(left->sums, left->columns / 2, std::bit_cast<float>(~0u));
  }
  for (auto p = me.products.begin(); p != end; ++p)
    if (std::none_of(end, me.products.end(), [&](const auto& o) { return o.sums == p->sums; }))
      std::erase(me.fenced, p->sums);
  me.products.erase(me.products.begin(), end);
  Meet(~0u, {"wgmma_wait", at}, {}, nullptr, Ordering::kMemory);
}

}  // namespace tessera::simt
