// IEEE binary16.
#pragma once

#include "core/format.h"

namespace extrap {

struct Float16 {
  uint16_t bits;
};

inline namespace EXTRAP_ISA {

template <>
struct Format<Float16> {
  using Value = float;
  static constexpr DType kDType = DType::float16;
  template <class V>
  using Stored = typename Ops<V>::Half;

  template <class V>
  static EXTRAP_HD V decode(Stored<V> stored) {
    if constexpr (Ops<V>::kHasFloat16) {
      return Ops<V>::from_float16(stored);
    } else {
      using Word = typename Ops<V>::Word;
      const Word bits = Ops<V>::widen(stored);
      const Word sign = (bits & 0x8000u) << 16;
      const Word magnitude = bits & 0x7fffu;
      const Word normal = (magnitude << 13) + (112u << 23);
      // A subnormal is its mantissa in units of 2^-24, exactly.
      const Word subnormal = Ops<V>::bits(Ops<V>::from_integer(magnitude) * 0x1p-24f);
      const Word infinite = normal + (112u << 23);
      const Word finite = magnitude < 0x400u ? subnormal : normal;
      return Ops<V>::from_bits(sign | (magnitude < 0x7c00u ? finite : infinite));
    }
  }

  // To nearest even, with overflow to infinity and subnormals.
  template <class V>
  static EXTRAP_HD Stored<V> encode(V v) {
    if constexpr (Ops<V>::kHasFloat16) {
      return Ops<V>::to_float16(v);
    } else {
      using Word = typename Ops<V>::Word;
      const Word bits = Ops<V>::bits(v);
      const Word sign = (bits >> 16) & 0x8000u;
      const Word magnitude = bits & 0x7fffffffu;
      const Word normal = (magnitude - 0x38000000u + 0xfffu + ((magnitude >> 13) & 1u)) >> 13;
      // Adding 1/2 leaves the bits of the rounded subnormal at the end of the sum's mantissa.
      const Word subnormal = Ops<V>::bits(Ops<V>::from_bits(magnitude) + 0.5f) - 0x3f000000u;
      const Word finite = magnitude < 0x38800000u ? subnormal : normal;
      const Word special = magnitude > 0x7f800000u ? Word{} + 0x7e00u : Word{} + 0x7c00u;
      return Ops<V>::narrow(sign | (magnitude < 0x477ff000u ? finite : special));
    }
  }

  // Two numbers in one word.
  template <class V>
  static EXTRAP_HD typename Ops<V>::Word encode_pair(V low, V high) {
    if constexpr (Ops<V>::kHasFloat16) {
      return Ops<V>::to_float16_pair(low, high);
    } else {
      return encode(low) | static_cast<uint32_t>(encode(high)) << 16;
    }
  }
};

}  // namespace EXTRAP_ISA
}  // namespace extrap
