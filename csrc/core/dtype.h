// Storage formats of 16 bits, as integer arithmetic on single numbers.
#pragma once

#include "core/ops.h"

namespace extrap {

struct BFloat16 {
  uint16_t bits;
};

struct Float16 {
  uint16_t bits;
};

EXTRAP_HD float to_float(Float16 h) {
  const uint32_t sign = (h.bits & 0x8000u) << 16;
  const uint32_t exponent = (h.bits >> 10) & 0x1fu;
  const uint32_t mantissa = h.bits & 0x3ffu;
  // A subnormal is its mantissa in units of 2^-24, exactly.
  if (exponent == 0) return Ops<float>::from_bits(sign | Ops<float>::bits(static_cast<float>(mantissa) * 0x1p-24f));
  const uint32_t widened = exponent == 0x1fu ? 0xffu : exponent + 112u;
  return Ops<float>::from_bits(sign | (widened << 23) | (mantissa << 13));
}

// To nearest even, with overflow to infinity and subnormals.
EXTRAP_HD Float16 to_float16(float v) {
  const uint32_t bits = Ops<float>::bits(v);
  const uint32_t sign = (bits >> 16) & 0x8000u;
  const uint32_t magnitude = bits & 0x7fffffffu;
  uint32_t half;
  if (magnitude > 0x7f800000u) {
    half = 0x7e00u;
  } else if (magnitude >= 0x477ff000u) {
    half = 0x7c00u;
  } else if (magnitude < 0x38800000u) {
    // Adding 1/2 leaves the bits of the rounded subnormal at the end of the sum's mantissa.
    half = Ops<float>::bits(Ops<float>::from_bits(magnitude) + 0.5f) - 0x3f000000u;
  } else {
    half = (magnitude - 0x38000000u + 0xfffu + ((magnitude >> 13) & 1u)) >> 13;
  }
  return {static_cast<uint16_t>(sign | half)};
}

// To nearest even; a NaN stays one.
EXTRAP_HD BFloat16 to_bfloat16(float v) {
  const uint32_t bits = Ops<float>::bits(v);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return {0x7fffu};
  return {static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16)};
}

}  // namespace extrap
