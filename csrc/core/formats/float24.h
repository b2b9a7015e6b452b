// 24 bits of a float, in two tensors: its upper half, rounded, and a byte of what that is off by. For the base iterate.
// Twin, with the definition: extrap_kernels/state/float24.py.
#pragma once

#include "core/format.h"

namespace extrap {

struct Float24 {
  uint16_t high;
};

// The other tensor's part of it.
struct LowByte {
  uint8_t bits;
};

inline namespace EXTRAP_ISA {

template <>
struct Format<Float24> {
  using Value = float;
  static constexpr DType kDType = DType::bfloat16;  // of the upper halves
  template <class V>
  using Stored = typename Ops<V>::Half;

  // Stochastically, by the lowest 8 of 32 random bits: what the two tensors can hold. Past the largest number lies
  // infinity, which has nothing below to be carried.
  template <class V>
  static EXTRAP_HD V rounded(V v, typename Ops<V>::Word random) {
    using Word = typename Ops<V>::Word;
    const Word kept = (Ops<V>::bits(v) + (random & 0xffu)) & 0xffffff00u;
    return Ops<V>::from_bits(v == v ? kept : Word{} + 0x7fc00000u);
  }

  // Of the bits of a rounded number.
  template <class Word>
  static EXTRAP_HD Word high(Word bits) {
    return (bits + 0x8000u) >> 16;
  }
  template <class Word>
  static EXTRAP_HD Word low(Word bits) {
    return (bits >> 8) & 0xffu;
  }

  // The byte has a sign, as the upper half may be rounded up.
  template <class V>
  static EXTRAP_HD V join(typename Ops<V>::Word high, typename Ops<V>::Word low) {
    return Ops<V>::from_bits((high << 16) + (((low ^ 0x80u) - 0x80u) << 8));
  }
};

template <>
struct Format<LowByte> {
  using Value = float;
  template <class V>
  using Stored = uint8_t;  // of one number
};

}  // namespace EXTRAP_ISA
}  // namespace extrap
