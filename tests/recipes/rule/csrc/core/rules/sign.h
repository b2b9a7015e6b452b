// A toy: sign-SGD, whose steps have a gain of their own.
#pragma once

#include "core/config.h"
#include "core/macros.h"
#include "core/ops.h"
#include "core/rule.h"
#include "core/table.h"

namespace extrap {
inline namespace EXTRAP_ISA {

template <class A>
struct Sign {
  using Buffers = BufferSigns<>;
  static constexpr Norm kNorm = Norm::none;
  static constexpr bool kOwnDecay = false;
  A gain;

  EXTRAP_HD Sign(const StepConfig& c, const TensorEntry&) : gain(static_cast<A>(c.gain)) {}

  template <class V>
  EXTRAP_HD void direction(V g, V l, V, V*, V& u, V& z) const {
    const V zero{}, one = zero + A(1);
    u = select(g > zero, one, select(g < zero, -one, zero)) * gain;
    z = l;
  }

  template <class V>
  EXTRAP_HD V extragradient_direction(V, V l, const V*) const {
    return l;
  }
};

namespace rules {
using sign = RuleVariants<Sign>;
}

}  // namespace EXTRAP_ISA
}  // namespace extrap
