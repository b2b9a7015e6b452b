// LARS (You et al. 2017): SGD on gradients scaled to the norm of each tensor. Twin: extrap_kernels/reference/lars.py.
#pragma once

#include "core/rules/sgd.h"

namespace extrap {
inline namespace EXTRAP_ISA {

template <template <class> class Base, class A>
struct ScaledSgd : Base<A> {
  static constexpr Norm kNorm = Norm::gradient;
  A trust;

  EXTRAP_HD ScaledSgd(const StepConfig& c, const TensorEntry& t) : Base<A>(c, t), trust(static_cast<A>(t.trust)) {}

  // norm_g: before the decay joined the gradient.
  static EXTRAP_HD double trust_ratio(const StepConfig& c, double norm_x, double norm_g) {
    if (!(norm_x > 0 && norm_g > 0)) return 1.0;
    const double decay = c.decoupled_weight_decay != 0 ? 0.0 : c.weight_decay;
    return c.trust_coefficient * norm_x / (norm_g + decay * norm_x + c.eps);
  }

  template <class V>
  EXTRAP_HD void direction(V g, V l, V x, V* buffers, V& u, V& z) const {
    Base<A>::direction(g * trust, l * trust, x, buffers, u, z);
  }

  template <class V>
  EXTRAP_HD V extragradient_direction(V, V l, const V*) const {
    return l * trust;
  }
};

template <class A>
using Lars = ScaledSgd<Sgd, A>;

template <class A>
using LarsMomentum = ScaledSgd<SgdMomentum, A>;

namespace rules {
using lars = RuleVariants<Lars, LarsMomentum>;
}

}  // namespace EXTRAP_ISA
}  // namespace extrap
