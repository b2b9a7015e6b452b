// From the four words of a Philox counter to the noise of four consecutive elements.
#pragma once

#include "core/philox.h"

namespace extrap {

enum class Noise : int64_t { none, uniform, gaussian };
constexpr const char* kNoiseNames[] = {"none", "uniform", "gaussian"};

// What the standard deviation of the noise is in units of.
enum class NoiseScale : int64_t { absolute, tensor, filter, gradient };
constexpr const char* kNoiseScaleNames[] = {"absolute", "tensor", "filter", "gradient"};

inline namespace EXTRAP_ISA {

// F: float, or a vector of floats with one counter in each lane.
template <class F>
struct NoiseLanes {
  F lane[4];
};

// In (0, 1) and exact: 23 bits and a half.
template <class F, class U>
EXTRAP_HD F unit_interval(U word) {
  return (Ops<F>::from_integer(word >> 9) + 0.5f) * 0x1p-23f;
}

template <class F, class U>
EXTRAP_HD NoiseLanes<F> uniform_noise(const PhiloxWords<U>& words) {
  NoiseLanes<F> n;
  EXTRAP_UNROLL
  for (int k = 0; k < 4; ++k) n.lane[k] = 2.0f * unit_interval<F>(words.word[k]) - 1.0f;
  return n;
}

// Horner's rule; the highest power first.
template <class F, class... Coefficients>
EXTRAP_HD F polynomial(F x, float highest, Coefficients... others) {
  F sum = F{} + highest;
  ((sum = Ops<F>::multiply_add(sum, x, F{} + others)), ...);
  return sum;
}

// Natural logarithm on (0, 1), relative error below 1.5e-7. The mantissa is taken from [sqrt(1/2), sqrt(2)), so that
// there is no cancellation near 1; the polynomial is a minimax fit of (log(1+f) - f + f^2/2) / f^3.
template <class F>
EXTRAP_HD F log_unit(F u) {
  using U = typename Ops<F>::Word;
  const U shifted = Ops<F>::bits(u) + (0x3f800000u - 0x3f3504f3u);
  const F exponent = Ops<F>::from_integer(shifted >> 23) - 127.0f;
  const F f = Ops<F>::from_bits((shifted & 0x007fffffu) + 0x3f3504f3u) - 1.0f;
  const F p =
      polynomial(f, 0.08700435f, -0.14267486f, 0.14914769f, -0.16577585f, 0.19963063f, -0.25001338f, 0.3333391f);
  const F square = f * f;
  // ln 2 in two parts, of which the first times the exponent is exact.
  const F small = Ops<F>::multiply_add(exponent, F{} - 2.12194440e-4f, (square * f) * p);
  const F mantissa_part = Ops<F>::multiply_add(square, F{} - 0.5f, small) + f;
  return Ops<F>::multiply_add(exponent, F{} + 0.693359375f, mantissa_part);
}

template <class F>
struct SineCosine {
  F sine, cosine;
};

// sin and cos of 2*pi*u for u in (0, 1), relative error below 3e-7: the quarter turn is taken off exactly, then minimax
// polynomials in a quarter turn's fraction.
template <class F>
EXTRAP_HD SineCosine<F> sine_cosine_turns(F u) {
  using U = typename Ops<F>::Word;
  const F quarters = 4.0f * u;
  const U quadrant = Ops<F>::to_integer(quarters + 0.5f);
  const F f = quarters - Ops<F>::from_integer(quadrant);
  const F q = f * f;
  const F s = polynomial(q, -0.004601658f, 0.07968003f, -0.6459635f, 1.5707964f) * f;
  const F c = polynomial(q, -0.020417282f, 0.25360322f, -1.2336977f, 1.0f);
  // Quadrants 0 to 3 have (sin, cos) = (s, c), (c, -s), (-s, -c), (-c, s).
  const F sine = (quadrant & 1u) != 0u ? c : s;
  const F cosine = (quadrant & 1u) != 0u ? s : c;
  const U sine_sign = (quadrant & 2u) << 30;
  const U cosine_sign = ((quadrant + 1u) & 2u) << 30;
  return {Ops<F>::from_bits(Ops<F>::bits(sine) ^ sine_sign), Ops<F>::from_bits(Ops<F>::bits(cosine) ^ cosine_sign)};
}

// Box-Muller: lanes 0 and 1 from words 0 and 1, lanes 2 and 3 from words 2 and 3.
template <class F, class U>
EXTRAP_HD NoiseLanes<F> gaussian_noise(const PhiloxWords<U>& words) {
  NoiseLanes<F> n;
  EXTRAP_UNROLL
  for (int k = 0; k < 4; k += 2) {
    const F radius = Ops<F>::sqrt(-2.0f * log_unit(unit_interval<F>(words.word[k])));
    const SineCosine<F> angle = sine_cosine_turns(unit_interval<F>(words.word[k + 1]));
    n.lane[k] = radius * angle.cosine;
    n.lane[k + 1] = radius * angle.sine;
  }
  return n;
}

// The counter whose words give the noise of elements `position` to `position + 3`, which is a multiple of 4.
EXTRAP_HD PhiloxWords<uint32_t> noise_counter(uint64_t position, uint32_t index, double step) {
  const uint64_t block = position >> 2;
  return {{static_cast<uint32_t>(block), static_cast<uint32_t>(block >> 32), index, static_cast<uint32_t>(step)}};
}

template <class F, class U>
EXTRAP_HD NoiseLanes<F> noise_of(Noise kind, const PhiloxWords<U>& words) {
  return kind == Noise::uniform ? uniform_noise<F>(words) : gaussian_noise<F>(words);
}

}  // namespace EXTRAP_ISA
}  // namespace extrap
