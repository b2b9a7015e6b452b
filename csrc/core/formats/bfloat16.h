// bfloat16: the upper half of a float.
#pragma once

#include "core/format.h"

namespace extrap {

struct BFloat16 {
  uint16_t bits;
};

inline namespace EXTRAP_ISA {

template <>
struct Format<BFloat16> {
  using Value = float;
  static constexpr DType kDType = DType::bfloat16;
  template <class V>
  using Stored = typename Ops<V>::Half;

  template <class V>
  static EXTRAP_HD V decode(Stored<V> stored) {
    return Ops<V>::from_bits(Ops<V>::widen(stored) << 16);
  }

  // To nearest even; a NaN keeps its sign and becomes quiet.
  template <class V>
  static EXTRAP_HD Stored<V> encode(V v) {
    if constexpr (Ops<V>::kHasBFloat16) {
      return Ops<V>::to_bfloat16(v);
    } else {
      const typename Ops<V>::Word bits = Ops<V>::bits(v);
      const typename Ops<V>::Word rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
      return Ops<V>::narrow(v == v ? rounded : ((bits >> 16) | 0x40u));
    }
  }

  // Stochastically: up with the probability of what is cut off, by the upper half of 32 random bits. Past the largest
  // number lies infinity.
  template <class V>
  static EXTRAP_HD Stored<V> encode(V v, typename Ops<V>::Word random) {
    using Word = typename Ops<V>::Word;
    // Infinity stays what it is: there is nothing below its upper half to be carried.
    const Word rounded = (Ops<V>::bits(v) + (random >> 16)) >> 16;
    return Ops<V>::narrow(v == v ? rounded : Word{} + 0x7fc0u);
  }

  // Two numbers in one word.
  template <class V>
  static EXTRAP_HD typename Ops<V>::Word encode_pair(V low, V high) {
    if constexpr (Ops<V>::kHasBFloat16) {
      return Ops<V>::to_bfloat16_pair(low, high);
    } else {
      return encode(low) | static_cast<uint32_t>(encode(high)) << 16;
    }
  }
};

}  // namespace EXTRAP_ISA
}  // namespace extrap
