// The directions of extrapolation: from the base iterate x to the point y where the next gradient is taken.
#pragma once

#include <cstdint>

#include "core/macros.h"

namespace extrap {

enum class Extrapolation : int64_t { none, past_gradient, past_update, extragradient };
constexpr const char* kExtrapolationNames[] = {"none", "past_gradient", "past_update", "extragradient"};

inline namespace EXTRAP_ISA {

// y without its noise. u: the update; z: the rule's direction for a gradient; lr: the inner learning rate.
template <class V, class A>
EXTRAP_HD V extrapolated(Extrapolation direction, V x, V u, V z, A lr) {
  if (direction == Extrapolation::past_gradient) return x - z * lr;
  if (direction == Extrapolation::past_update) return x - u * lr;
  return x;  // extragradient: the next gradient, taken at x, extrapolates
}

}  // namespace EXTRAP_ISA
}  // namespace extrap
