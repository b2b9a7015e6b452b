// Adam and AdamW: from the gradient to the update u and the extrapolation direction z. Twin:
// extrap_kernels/reference/adam.py.
#pragma once

#include <cmath>

#include "core/config.h"
#include "core/ops.h"
#include "core/rule.h"
#include "core/table.h"

namespace extrap {
inline namespace EXTRAP_ISA {

// base to the power of a whole number, by squaring: on a device, pow() costs a call and a stack.
EXTRAP_HD double power(double base, double exponent) {
  double result = 1;
  for (uint64_t n = static_cast<uint64_t>(exponent); n != 0; n >>= 1) {
    if (n & 1) result *= base;
    base *= base;
  }
  return result;
}

// A: float or double. V: A, or a vector of A.
template <class A>
struct Adam {
  using Buffers = BufferSigns<kSigned, kUnsigned>;
  static constexpr Norm kNorm = Norm::none;
  static constexpr bool kOwnDecay = false;
  A first_weight, beta2, second_weight, first_correction, second_correction, eps;

  EXTRAP_HD Adam(const StepConfig& c, const TensorEntry& t)
      : first_weight(static_cast<A>(1.0 - c.beta1)),
        beta2(static_cast<A>(c.beta2)),
        second_weight(static_cast<A>(1.0 - c.beta2)),
        first_correction(static_cast<A>(1.0 / (1.0 - power(c.beta1, t.step)))),
        second_correction(static_cast<A>(1.0 / ::sqrt(1.0 - power(c.beta2, t.step)))),
        eps(static_cast<A>(c.eps)) {}

  template <class V>
  EXTRAP_HD V second_moment(V g, V v) const {
    return v * beta2 + (g * g) * second_weight;
  }

  // 1 / (sqrt(v_hat) + eps): one division serves both u and z.
  template <class V>
  EXTRAP_HD V preconditioner(V v) const {
    return A(1) / (Ops<V>::sqrt(v) * second_correction + eps);
  }

  template <class V>
  EXTRAP_HD void direction(V g, V l, V, V* buffers, V& u, V& z) const {
    buffers[0] = buffers[0] + (g - buffers[0]) * first_weight;
    buffers[1] = second_moment(g, buffers[1]);
    const V p = preconditioner(buffers[1]);
    u = (buffers[0] * first_correction) * p;
    z = l * p;
  }

  // With the second moment as it would be after this gradient; nothing of it is kept.
  template <class V>
  EXTRAP_HD V extragradient_direction(V g, V l, const V* buffers) const {
    return l * preconditioner(second_moment(g, buffers[1]));
  }
};

namespace rules {
using adam = RuleVariants<Adam>;
}

}  // namespace EXTRAP_ISA
}  // namespace extrap
