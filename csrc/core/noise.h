// From random words to noise: each word serves two elements that follow each other.
#pragma once

#include "core/random_bits.h"

namespace extrap {

enum class Noise : int64_t { none, uniform, gaussian };
constexpr const char* kNoiseNames[] = {"none", "uniform", "gaussian"};

// What the standard deviation of the noise is in units of.
enum class NoiseScale : int64_t { absolute, tensor, filter, gradient };
constexpr const char* kNoiseScaleNames[] = {"absolute", "tensor", "filter", "gradient"};

inline namespace EXTRAP_ISA {

// Of the elements at an even position and the one after it. F: float, or a vector of floats with a pair in each lane.
template <class F>
struct NoisePair {
  F even, odd;
};

// In (-1, 1), from 16 bits, and exact.
template <class F, class U>
EXTRAP_HD F symmetric_interval(U half) {
  return Ops<F>::multiply_add(Ops<F>::from_integer(half), F{} + 0x1p-15f, F{} + (0x1p-16f - 1.0f));
}

template <class F, class U>
EXTRAP_HD NoisePair<F> uniform_noise(U word) {
  return {symmetric_interval<F>(word & 0xffffu), symmetric_interval<F>(word >> 16)};
}

// Horner's rule; the highest power first.
template <class F, class... Coefficients>
EXTRAP_HD F polynomial(F x, float highest, Coefficients... others) {
  F sum = F{} + highest;
  ((sum = Ops<F>::multiply_add(sum, x, F{} + others)), ...);
  return sum;
}

// -2 ln((a + 1/2) / 2^16) for 16 bits `a`, relative error below 4e-7. The mantissa is taken from [sqrt(1/2), sqrt(2)),
// so that there is no cancellation near 1; the polynomial is a minimax fit of -2 (log(1+f) - f + f^2/2) / f^3.
template <class F, class U>
EXTRAP_HD F radius_square(U a) {
  const U shifted = Ops<F>::bits(Ops<F>::from_integer(a) + 0.5f) + (0x3f800000u - 0x3f3504f3u);
  const F exponent = Ops<F>::from_integer(shifted >> 23) - (127.0f + 16.0f);
  const F f = Ops<F>::from_bits((shifted & 0x007fffffu) + 0x3f3504f3u) - 1.0f;
  const F p = polynomial(f, 0.203834694f, -0.320487734f, 0.342742558f, -0.398490058f, 0.499665338f, -0.666684914f);
  const F square = f * f;
  // -2 ln 2 in two parts, of which the first times the exponent is exact.
  const F small = Ops<F>::multiply_add(exponent, F{} + 4.24388880e-4f, (square * f) * p);
  const F mantissa_part = Ops<F>::multiply_add(f, F{} - 2.0f, square + small);
  return Ops<F>::multiply_add(exponent, F{} - 1.38671875f, mantissa_part);
}

// A point of the unit circle, from the upper 16 bits of a word: 14 of them are the angle to an axis, at most an eighth
// of a turn; one is the end of that axis, and one says which axis it is. Minimax polynomials in quarter turns, relative
// error below 3e-7.
template <class F, class U>
EXTRAP_HD NoisePair<F> circle_point(U word) {
  const F angle =
      Ops<F>::multiply_add(Ops<F>::from_integer((word >> 16) & 0x3fffu), F{} + 0x1p-14f, F{} + (0x1p-15f - 0.5f));
  const F q = angle * angle;
  const F across = polynomial(q, -0.004601658f, 0.07968003f, -0.6459635f, 1.5707964f) * angle;
  const F cosine = polynomial(q, -0.020417282f, 0.25360322f, -1.2336977f, 1.0f);
  const F along = Ops<F>::from_bits(Ops<F>::bits(cosine) ^ (word & 0x80000000u));
  const auto swapped = (word & 0x40000000u) != 0u;
  return {swapped ? across : along, swapped ? along : across};
}

// Box-Muller.
template <class F, class U>
EXTRAP_HD NoisePair<F> gaussian_noise(U word) {
  const F radius = Ops<F>::sqrt(radius_square<F>(word & 0xffffu));
  const NoisePair<F> point = circle_point<F>(word);
  return {radius * point.even, radius * point.odd};
}

template <class F, class U>
EXTRAP_HD NoisePair<F> noise_of(Noise kind, U word) {
  return kind == Noise::uniform ? uniform_noise<F>(word) : gaussian_noise<F>(word);
}

// Of the element at `position` and the one that shares its word.
EXTRAP_HD NoisePair<float> noise_around(Noise kind, const RandomKey& key, int64_t position) {
  const uint64_t pair = static_cast<uint64_t>(position) >> 1;
  return noise_of<float>(kind, key.bits(static_cast<uint32_t>(pair), static_cast<uint32_t>(pair >> 32)));
}

}  // namespace EXTRAP_ISA
}  // namespace extrap
