// The directions of extrapolation: from the base iterate x to the point y where the next gradient is taken.
#pragma once

#include <cstdint>

#include "core/macros.h"

namespace extrap {

enum class Extrapolation : int64_t { none, past_gradient, past_update, extragradient, momentum, gradient_difference };
constexpr const char* kExtrapolationNames[] = {"none",          "past_gradient", "past_update",
                                               "extragradient", "momentum",      "gradient_difference"};

inline namespace EXTRAP_ISA {

// The gradient that the rule makes its direction z of. g: the averaged one; l: this worker's own.
template <class V>
EXTRAP_HD V extrapolated_gradient(Extrapolation direction, V g, V l) {
  if (direction == Extrapolation::gradient_difference) return l - g;
  return l;
}

// y without its noise. u: the update; z: the rule's direction for a gradient; m: the first moment, as it is; lr: the
// inner learning rate.
template <class V, class A>
EXTRAP_HD V extrapolated(Extrapolation direction, V x, V u, V z, V m, A lr) {
  if (direction == Extrapolation::past_gradient || direction == Extrapolation::gradient_difference) return x - z * lr;
  if (direction == Extrapolation::past_update) return x - u * lr;
  if (direction == Extrapolation::momentum) return x - m * lr;
  return x;  // extragradient: the next gradient, taken at x, extrapolates
}

}  // namespace EXTRAP_ISA
}  // namespace extrap
