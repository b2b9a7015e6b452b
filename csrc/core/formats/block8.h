// 8 bits a number, and an exponent that 16 of them share. Twin, with the definition: extrap_kernels/state/blocks.py.
#pragma once

#include <type_traits>

#include "core/format.h"

namespace extrap {

// A code. What it stands for depends on the sign of its buffer and on the exponent of its block.
struct Block8 {
  uint8_t code;
};

constexpr int kBlockNumbers = 16;
constexpr uint32_t kSmallestExponent = 12, kPoisonedExponent = 255;
constexpr uint32_t kLeastRoot = 2;  // code of a root that is not zero

inline namespace EXTRAP_ISA {

template <>
struct Format<Block8> {
  using Value = float;
  static constexpr DType kDType = DType::uint8;
  template <class V>
  using Stored = uint8_t;  // of one number
};

// What all numbers of a block have in common, for a vector of them.
struct BlockScale {
  uint32_t origin;  // the pattern of the number with the code 0, were it not fixed-point
  float one;        // below it, numbers are fixed-point, with the exponent of this one
  uint32_t poison;  // 0, or a bit of NaN

  explicit EXTRAP_HD BlockScale(uint32_t exponent)
      : origin((exponent - 7) << 23),
        one(Ops<float>::from_bits((exponent - 6) << 23)),
        poison(exponent == kPoisonedExponent ? 0x7fc00000u : 0u) {}
};

// The same for single numbers. Divided by it and by kRange, a number has the bits of its code, and those that are
// rounded off below them: fixed-point is what float32 does with numbers below its smallest exponent.
struct BlockFactor {
  static constexpr float kRange = 0x1p126f;
  float factor, inverse;
  uint32_t kept_codes;  // a mask

  explicit EXTRAP_HD BlockFactor(uint32_t exponent)
      : factor(Ops<float>::from_bits(exponent == kPoisonedExponent ? 0x7fc00000u : (exponent - 6) << 23)),
        inverse(Ops<float>::from_bits((260 - exponent) << 23)),
        kept_codes(exponent == kPoisonedExponent ? 0u : 0xffffffffu) {}
};

// Of numbers of which none is NaN unless both are.
template <class V>
EXTRAP_HD V smaller(V a, V b) {
#if defined(__CUDA_ARCH__)
  if constexpr (std::is_same_v<V, float>) return ::fminf(a, b);
#endif
  return a < b ? a : b;
}

template <class V>
EXTRAP_HD V larger(V a, V b) {
  return a > b ? a : b;
}

// kSign: whether the buffer takes any sign; if not, the roots of its numbers are stored.
template <bool kSign>
struct BlockCodec {
  static constexpr int kMantissa = kSign ? 4 : 5;
  static constexpr int kCut = 23 - kMantissa;  // bits of a float that are rounded off
  // The bits of a random word that round.
  static constexpr int kFirstBit = kSign ? 8 : 16, kBits = kSign ? 8 : 16;

  // What is stored of a number.
  template <class V>
  static EXTRAP_HD V kept(V v) {
    if constexpr (kSign)
      return v;
    else
      return Ops<V>::sqrt(v);
  }

  template <class V>
  static EXTRAP_HD typename Ops<V>::Word magnitude(V kept) {
    return Ops<V>::bits(kept) & 0x7fffffffu;
  }

  // What is added to a magnitude before the bits that its code has no room for are cut off: kAdded, and this of a
  // random word.
  static constexpr uint32_t kAdded = 1u << (kCut - kBits - 1);
  template <class Word>
  static EXTRAP_HD Word random_added(Word random) {
    constexpr int kPlace = kCut - kBits;
    constexpr uint32_t kMask = ((1u << kBits) - 1) << kPlace;
    if constexpr (kPlace > kFirstBit)
      return (random << (kPlace - kFirstBit)) & kMask;
    else
      return (random >> (kFirstBit - kPlace)) & kMask;
  }
  template <class Word>
  static EXTRAP_HD Word added(Word random) {
    return random_added(random) | kAdded;
  }

  // largest: of magnitude + added in the block. So one that is rounded up to a power of two takes its block along.
  template <class Word>
  static EXTRAP_HD Word exponent(Word largest) {
    return smaller(larger(largest >> 23, Word{} + kSmallestExponent), Word{} + kPoisonedExponent);
  }

  // one: see BlockScale. added_bits: see added(). Codes of a poisoned block are to be masked.
  template <class V>
  static EXTRAP_HD typename Ops<V>::Word encode(V kept, V one, typename Ops<V>::Word added_bits) {
    using Word = typename Ops<V>::Word;
    const Word pattern = magnitude(kept);
    const Word fixed_point = Ops<V>::bits(Ops<V>::from_bits(pattern) + one), floating = pattern + (1u << 23);
    // Fixed-point is the larger one below `one`, where it counts, and nowhere else.
    const Word code = (larger(fixed_point, floating) + added_bits - Ops<V>::bits(one)) >> kCut;
    if constexpr (kSign) return code | ((Ops<V>::bits(kept) >> 24) & 0x80u);
    return larger(code, smaller(pattern, Word{} + kLeastRoot));
  }

  // The same as the upper byte of a word, for a processor that multiplies numbers below float32's smallest exponent as
  // fast as others: of a GPU's instructions, those on floats are the cheaper ones. Codes of a poisoned block are to be
  // masked.
  static EXTRAP_HD uint32_t encode_in_upper_byte(float kept, const BlockFactor& block, uint32_t random) {
    const float scaled = kept * block.inverse * (1 / BlockFactor::kRange);
    uint32_t code = Ops<float>::bits(scaled) + random_added(random) + kAdded;
    if constexpr (kSign) return (code & 0x80000000u) | ((code << (24 - kCut)) & 0x7fffffffu);
    // No root of a float32 but zero has bits below those of the least code.
    constexpr uint32_t kLeast = kLeastRoot << kCut;
    const uint32_t pattern = Ops<float>::bits(kept), least = pattern < kLeast ? pattern : kLeast;
    code = code > least ? code : least;
    return code << (24 - kCut);
  }

  // code: in the upper byte of a word without other bits.
  static EXTRAP_HD float decode_upper_byte(uint32_t code, const BlockFactor& block) {
    if constexpr (kSign) {
      const uint32_t bits =
          static_cast<uint32_t>(static_cast<int32_t>(code) >> (24 - kCut)) & (0x80000000u | (0x7fu << kCut));
      return Ops<float>::from_bits(bits) * BlockFactor::kRange * block.factor;
    }
    const float root = Ops<float>::from_bits(code >> (24 - kCut)) * BlockFactor::kRange * block.factor;
    return root * root;
  }

  // For lanes that a processor converts from binary16: in its bits, a code is its number but for a power of two,
  // fixed-point ones as subnormals. code: sign-extended if kSign.
  template <class V>
  static EXTRAP_HD V decode_half(typename Ops<V>::Half code, const BlockFactor& block) {
    const typename Ops<V>::Half bits = kSign ? (code << (10 - kMantissa)) & 0x9fc0 : code << (10 - kMantissa);
    const V number = Ops<V>::from_float16(bits) * 0x1p14f * block.factor;
    return kSign ? number : number * number;
  }

  template <class V>
  static EXTRAP_HD V decode(typename Ops<V>::Word code, const BlockScale& block) {
    using Word = typename Ops<V>::Word;
    const Word number = kSign ? code & 0x7fu : code;
    const V floating = Ops<V>::from_bits((number << kCut) + block.origin);
    // Fixed-point is the smaller one below `one`, where it counts, and nowhere else.
    const V absolute = smaller(floating, floating + floating - block.one);
    const Word bits = Ops<V>::bits(absolute) | block.poison;
    if constexpr (kSign) return Ops<V>::from_bits(bits | ((code & 0x80u) << 24));
    const V root = Ops<V>::from_bits(bits);
    return root * root;
  }
};

}  // namespace EXTRAP_ISA
}  // namespace extrap
