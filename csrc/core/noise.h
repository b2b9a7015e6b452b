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

// -2 ln u for u = (a + 1/2) / 2^16, where `a` is the lower half of a word. With u = 2^e (1 + f), the bits of a number
// say e + f, which is log2(u) at the powers of two; t = 1 - f, and a minimax polynomial gives the rest. There is no
// cancellation near u = 1, where t is 0.
template <class F, class U>
EXTRAP_HD F radius_square(U word) {
  const U bits = Ops<F>::bits(Ops<F>::from_bits((word & 0xffffu) | 0x4b000000u) - (0x1p23f - 0.5f));
  const F chord = Ops<F>::from_integer(0x47800000u - bits);  // -(e + f) 2^23
  const F t = 2.0f - Ops<F>::from_bits((bits & 0x007fffffu) | 0x3f800000u);
  const F bend = t * polynomial(t, 0.053811647f, -0.023477254f, 0.11110472f, 0.24452734f, -0.38599914f);
  return Ops<F>::multiply_add(chord, F{} + 1.6525917e-7f, bend);
}

// A point of the unit circle, from the upper half of a word: 15 bits are the angle in half turns, between -1/2 and 1/2,
// and one mirrors the point. Minimax polynomials.
template <class F, class U>
EXTRAP_HD NoisePair<F> circle_point(U word) {
  const F angle = Ops<F>::from_bits(((word >> 8) & 0x007fff00u) | 0x3f800000u) - (1.5f - 0x1p-16f);
  const F q = angle * angle;
  const F cosine = polynomial(q, -1.2221271f, 4.0412836f, -4.933938f, 0.9999933f);
  const F sine = polynomial(q, -0.5546362f, 2.541899f, -5.167143f, 3.141582f) * angle;
  return {Ops<F>::from_bits(Ops<F>::bits(cosine) ^ (word & 0x80000000u)), sine};
}

// Box-Muller. To within 4e-5, far less than any number of elements could tell.
template <class F, class U>
EXTRAP_HD NoisePair<F> gaussian_noise(U word) {
  const F radius = Ops<F>::sqrt(radius_square<F>(word));
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
