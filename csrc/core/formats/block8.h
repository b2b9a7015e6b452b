// 8 bits a number, and an exponent that 16 of them share. Twin, with the definition: extrap_kernels/state/blocks.py.
#pragma once

#include "core/format.h"

namespace extrap {

// A code. What it stands for depends on the sign of its buffer and on the exponent of its block.
struct Block8 {
  uint8_t code;
};

constexpr int kBlockNumbers = 16;
constexpr uint32_t kSmallestExponent = 12, kPoisonedExponent = 255;

inline namespace EXTRAP_ISA {

template <>
struct Format<Block8> {
  using Value = float;
  static constexpr DType kDType = DType::uint8;
  template <class V>
  using Stored = uint8_t;  // of one number
};

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

  // What is added to a magnitude before the bits that its code has no room for are cut off. random: a word.
  template <class Word>
  static EXTRAP_HD Word added(Word random) {
    const Word chosen = (random >> kFirstBit) & ((1u << kBits) - 1);
    return (chosen << (kCut - kBits)) + (1u << (kCut - kBits - 1));
  }

  // largest: of magnitude + added in the block. So one that is rounded up to a power of two takes its block along.
  static EXTRAP_HD uint32_t exponent(uint32_t largest) {
    const uint32_t e = largest >> 23;
    return e < kSmallestExponent ? kSmallestExponent : e < kPoisonedExponent ? e : kPoisonedExponent;
  }

  template <class V>
  static EXTRAP_HD typename Ops<V>::Word encode(V kept, uint32_t exponent, typename Ops<V>::Word random) {
    using Word = typename Ops<V>::Word;
    const uint32_t low = exponent - 6;
    const float one = Ops<float>::from_bits(low << 23);
    const Word pattern = magnitude(kept);
    const V absolute = Ops<V>::from_bits(pattern);
    // Below `one`, its exponent is that of all numbers.
    const Word fixed_point = Ops<V>::bits(absolute + one) - (1u << 23);
    Word code = (((absolute < one ? fixed_point : pattern) + added(random)) >> kCut) - ((low - 1) << kMantissa);
    if constexpr (kSign)
      code = code | ((Ops<V>::bits(kept) >> 24) & 0x80u);
    else
      code = code == 0u ? (pattern == 0u ? Word{} : Word{} + 1u) : code;
    return code & (exponent == kPoisonedExponent ? 0u : 0xffu);
  }

  template <class V>
  static EXTRAP_HD V decode(typename Ops<V>::Word code, uint32_t exponent) {
    using Word = typename Ops<V>::Word;
    const uint32_t low = exponent - 6;
    const uint32_t poison = exponent == kPoisonedExponent ? 0x7fc00000u : 0u;
    const Word number = kSign ? code & 0x7fu : code;
    const Word pattern = (number << kCut) + ((low - 1) << 23);
    const V fixed_point = Ops<V>::from_bits(pattern + (1u << 23)) - Ops<float>::from_bits(low << 23);
    const V absolute = number < (1u << kMantissa) ? fixed_point : Ops<V>::from_bits(pattern);
    if constexpr (kSign) return Ops<V>::from_bits(Ops<V>::bits(absolute) | ((code & 0x80u) << 24) | poison);
    const V root = Ops<V>::from_bits(Ops<V>::bits(absolute) | poison);
    return root * root;
  }
};

}  // namespace EXTRAP_ISA
}  // namespace extrap
