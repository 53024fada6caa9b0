#ifndef TESSERA_CORE_DTYPE_H_
#define TESSERA_CORE_DTYPE_H_

#include <bit>
#include <cstdint>
#include <cstring>

namespace tessera {

enum class DType : uint8_t { kF32, kBF16, kF16, kI32, kI64, kU8 };

constexpr int64_t SizeOf(DType t) {
  constexpr int64_t kBytes[] = {4, 2, 2, 4, 8, 1};
  return kBytes[static_cast<int>(t)];
}
constexpr const char* Name(DType t) {
  constexpr const char* kNames[] = {"fp32", "bf16", "fp16", "int32", "int64", "uint8"};
  return kNames[static_cast<int>(t)];
}

// bfloat16: the upper half of a float. Rounds to nearest even; NaN stays NaN.
struct bf16 {
  uint16_t bits;
  bf16() = default;
  constexpr explicit bf16(float f) : bits(Round(std::bit_cast<uint32_t>(f))) {}
  constexpr explicit operator float() const {
    return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16);
  }

 private:
  static constexpr uint16_t Round(uint32_t u) {
    const bool nan = (u & 0x7fffffffu) > 0x7f800000u;
    return static_cast<uint16_t>(nan ? (u >> 16) | 0x40 : (u + 0x7fffu + ((u >> 16) & 1)) >> 16);
  }
};

// IEEE half precision, a storage format here: tensors and files, no arithmetic. _Float16 is the
// compiler's own, so the rounding (to nearest even) and the subnormals are its.
struct f16 {
  uint16_t bits;
  f16() = default;
  explicit f16(float f) {
    const _Float16 h = static_cast<_Float16>(f);
    std::memcpy(&bits, &h, 2);
  }
  explicit operator float() const {
    _Float16 h;
    std::memcpy(&h, &bits, 2);
    return static_cast<float>(h);
  }
};

template <class T>
inline constexpr DType kDTypeOf = DType::kF32;
template <>
inline constexpr DType kDTypeOf<bf16> = DType::kBF16;
template <>
inline constexpr DType kDTypeOf<f16> = DType::kF16;
template <>
inline constexpr DType kDTypeOf<int32_t> = DType::kI32;
template <>
inline constexpr DType kDTypeOf<int64_t> = DType::kI64;
template <>
inline constexpr DType kDTypeOf<uint8_t> = DType::kU8;

}  // namespace tessera

#endif  // TESSERA_CORE_DTYPE_H_
