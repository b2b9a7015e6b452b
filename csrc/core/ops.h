// Operations that C++ has no operator for, for each lane type: a scalar here, SIMD vectors in cpu/simd.h.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "core/macros.h"

namespace extrap {

template <class V>
struct Ops;

template <>
struct Ops<float> {
  using Word = uint32_t;
  static EXTRAP_HD float sqrt(float v) { return ::sqrtf(v); }
  // Fused on the device, where that costs nothing; only noise uses it, whose Gaussian part may differ in the last bit.
  static EXTRAP_HD float multiply_add(float a, float b, float c) {
#if defined(__CUDA_ARCH__)
    return __fmaf_rn(a, b, c);
#else
    return a * b + c;
#endif
  }
  static EXTRAP_HD float from_integer(uint32_t w) { return static_cast<float>(w); }
  static EXTRAP_HD uint32_t to_integer(float v) { return static_cast<uint32_t>(v); }
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

}  // namespace extrap
