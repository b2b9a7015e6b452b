// LAMB (You et al. 2020): Adam's direction and decoupled decay, scaled to the norm of each tensor. Twin:
// extrap_kernels/reference/lamb.py.
#pragma once

#include "core/rules/adam.h"

namespace extrap {
inline namespace EXTRAP_ISA {

template <class A>
struct Lamb : Adam<A> {
  static constexpr Norm kNorm = Norm::update;
  static constexpr bool kOwnDecay = true;
  A decay, trust;

  EXTRAP_HD Lamb(const StepConfig& c, const TensorEntry& t)
      : Adam<A>(c, t), decay(static_cast<A>(c.weight_decay)), trust(static_cast<A>(t.trust)) {}

  static EXTRAP_HD double trust_ratio(const StepConfig&, double norm_x, double norm_u) {
    return norm_x > 0 && norm_u > 0 ? norm_x / norm_u : 1.0;
  }

  // Before the trust ratio is known it is 1, and u is what its norm is taken of.
  template <class V>
  EXTRAP_HD void direction(V g, V l, V x, V* buffers, V& u, V& z) const {
    Adam<A>::direction(g, l, x, buffers, u, z);
    u = (u + x * decay) * trust;
  }
};

namespace rules {
using lamb = RuleVariants<Lamb>;
}

}  // namespace EXTRAP_ISA
}  // namespace extrap
