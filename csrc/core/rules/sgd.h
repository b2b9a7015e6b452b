// SGD: from the gradient to the update u and the extrapolation direction z. Twin: extrap_kernels/reference/sgd.py.
#pragma once

#include "core/config.h"
#include "core/macros.h"

namespace extrap {

// A: float or double. V: A, or a vector of A.
template <class A>
struct Sgd {
  static constexpr int kBuffers = 0;
  EXTRAP_HD Sgd(const StepConfig&, double) {}

  template <class V>
  EXTRAP_HD void direction(V g, V l, V*, V& u, V& z) const {
    u = g;
    z = l;
  }

  template <class V>
  EXTRAP_HD V extragradient_direction(V l, const V*) const {
    return l;
  }
};

template <class A>
struct SgdMomentum {
  static constexpr int kBuffers = 1;
  A momentum, grad_weight;
  bool nesterov;

  // The buffer starts as zeros, so that a weight of 1 makes it g in the first step.
  EXTRAP_HD SgdMomentum(const StepConfig& config, double step)
      : momentum(static_cast<A>(config.momentum)),
        grad_weight(static_cast<A>(step == 1 ? 1.0 : 1.0 - config.dampening)),
        nesterov(config.nesterov) {}

  template <class V>
  EXTRAP_HD void direction(V g, V l, V* buffer, V& u, V& z) const {
    const V v = buffer[0] * momentum + g * grad_weight;
    buffer[0] = v;
    u = nesterov ? g + v * momentum : v;
    z = l;
  }

  template <class V>
  EXTRAP_HD V extragradient_direction(V l, const V*) const {
    return l;
  }
};

}  // namespace extrap
