// SGD: from the gradient to the update u and the extrapolation direction z. Twin: extrap_kernels/reference/sgd.py.
#pragma once

#include "core/config.h"
#include "core/rule.h"
#include "core/table.h"

namespace extrap {
inline namespace EXTRAP_ISA {

// A: float or double. V: A, or a vector of A.
template <class A>
struct Sgd {
  using Buffers = BufferSigns<>;
  static constexpr Norm kNorm = Norm::none;
  static constexpr bool kOwnDecay = false;

  EXTRAP_HD Sgd(const StepConfig&, const TensorEntry&) {}

  template <class V>
  EXTRAP_HD void direction(V g, V l, V, V*, V& u, V& z) const {
    u = g;
    z = l;
  }

  template <class V>
  EXTRAP_HD V extragradient_direction(V, V l, const V*) const {
    return l;
  }
};

template <class A>
struct SgdMomentum : Sgd<A> {
  using Buffers = BufferSigns<kSigned>;
  A momentum, grad_weight;
  bool nesterov;

  // The buffer starts as zeros, so that a weight of 1 makes it g in the first step.
  EXTRAP_HD SgdMomentum(const StepConfig& c, const TensorEntry& t)
      : Sgd<A>(c, t),
        momentum(static_cast<A>(c.momentum)),
        grad_weight(static_cast<A>(t.step == 1 ? 1.0 : 1.0 - c.dampening)),
        nesterov(c.nesterov != 0) {}

  template <class V>
  EXTRAP_HD void direction(V g, V l, V, V* buffers, V& u, V& z) const {
    const V v = buffers[0] * momentum + g * grad_weight;
    buffers[0] = v;
    u = nesterov ? g + v * momentum : v;
    z = l;
  }
};

namespace rules {
using sgd = RuleVariants<Sgd, SgdMomentum>;
}

}  // namespace EXTRAP_ISA
}  // namespace extrap
