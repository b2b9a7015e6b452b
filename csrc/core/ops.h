// Operations that C++ has no operator for, for each lane type: a scalar here, SIMD vectors in cpu/simd.h.
#pragma once

#if defined(__CUDACC__)
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#endif

#include <cmath>
#include <cstdint>
#include <cstring>

#include "core/macros.h"

namespace extrap {
inline namespace EXTRAP_ISA {

template <class V>
struct Ops;

// a where the condition holds, else b: in each lane, where `?:` is not for all lane types.
template <class Condition, class V>
EXTRAP_HD V select(Condition condition, V a, V b) {
  return condition ? a : b;
}

template <>
struct Ops<float> {
  using Word = uint32_t;
  using Half = uint16_t;  // of a number in 16 bits
  static EXTRAP_HD Word widen(Half h) { return h; }
  static EXTRAP_HD Half narrow(Word w) { return static_cast<Half>(w); }
  // Whether there are instructions that convert to 16 bits, to nearest even as the formats do in integers.
#if defined(__CUDA_ARCH__)
  static constexpr bool kHasBFloat16 = true, kHasFloat16 = true;
  static EXTRAP_HD Half to_bfloat16(float v) { return __bfloat16_as_ushort(__float2bfloat16_rn(v)); }
  static EXTRAP_HD Half to_float16(float v) { return __half_as_ushort(__float2half_rn(v)); }
  static EXTRAP_HD float from_float16(Half h) { return __half2float(__ushort_as_half(h)); }
  static EXTRAP_HD uint32_t to_bfloat16_pair(float low, float high) {
    return words_of(__floats2bfloat162_rn(low, high));
  }
  static EXTRAP_HD uint32_t to_float16_pair(float low, float high) { return words_of(__floats2half2_rn(low, high)); }
  template <class Pair>
  static EXTRAP_HD uint32_t words_of(Pair pair) {
    uint32_t w;
    memcpy(&w, &pair, sizeof w);
    return w;
  }
#else
  static constexpr bool kHasBFloat16 = false, kHasFloat16 = false;
#endif
  static EXTRAP_HD float sqrt(float v) { return ::sqrtf(v); }
  // a * b + c, rounded once; of the arithmetic, only noise uses it. Where a processor has no instruction for it, by way
  // of double, which rounds twice: for all that noise asks for, both are equal, as tests/test_philox.py shows.
  static EXTRAP_HD float multiply_add(float a, float b, float c) {
#if defined(__CUDA_ARCH__)
    return __fmaf_rn(a, b, c);
#else
    return static_cast<float>(static_cast<double>(a) * b + c);
#endif
  }
  static EXTRAP_HD float from_integer(uint32_t w) { return static_cast<float>(w); }
  static EXTRAP_HD uint32_t bits(float v) {
    uint32_t w;
    memcpy(&w, &v, sizeof w);
    return w;
  }
  static EXTRAP_HD float from_bits(uint32_t w) {
    float v;
    memcpy(&v, &w, sizeof v);
    return v;
  }
};

template <>
struct Ops<double> {
  static EXTRAP_HD double sqrt(double v) { return ::sqrt(v); }
};

template <>
struct Ops<uint32_t> {
  static EXTRAP_HD void multiply_wide(uint32_t a, uint32_t b, uint32_t& high, uint32_t& low) {
    const uint64_t product = static_cast<uint64_t>(a) * b;
    high = static_cast<uint32_t>(product >> 32);
    low = static_cast<uint32_t>(product);
  }
};

}  // namespace EXTRAP_ISA
}  // namespace extrap
