// The directions of extrapolation: from the base iterate x to the point y where the next gradient is taken.
#pragma once

#include <cstdint>

#include "core/macros.h"

namespace extrap {

enum class Extrapolation : int64_t { none, past_gradient, past_update, extragradient, momentum, gradient_difference };
constexpr const char* kExtrapolationNames[] = {"none",          "past_gradient", "past_update",
                                               "extragradient", "momentum",      "gradient_difference"};

enum class ExtrapolationScale : int64_t { absolute, adaptive };
constexpr const char* kExtrapolationScaleNames[] = {"absolute", "adaptive"};

inline namespace EXTRAP_ISA {

// The gradient that the rule makes its direction z of. g: the averaged one; l: this worker's own.
template <class V>
EXTRAP_HD V extrapolated_gradient(Extrapolation direction, V g, V l) {
  if (direction == Extrapolation::gradient_difference) return l - g;
  return l;
}

// Along which y lies from x. u: the update; z: the rule's direction for a gradient; m: the first moment, as it is.
template <class V>
EXTRAP_HD V extrapolation_along(Extrapolation direction, V u, V z, V m) {
  if (direction == Extrapolation::past_update) return u;
  if (direction == Extrapolation::momentum) return m;
  return z;
}

// What extrap_norm takes the norm of. adaptive: every number is in units of its element of x.
template <class V>
EXTRAP_HD V measured(bool adaptive, V along, V x) {
  return adaptive ? along * x : along;
}

// y without its noise. lr: the inner learning rate.
template <class V, class A>
EXTRAP_HD V extrapolated(bool adaptive, V x, V along, A lr) {
  if (adaptive) along = along * x * x;
  return x - along * lr;
}

}  // namespace EXTRAP_ISA
}  // namespace extrap
