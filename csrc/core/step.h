// One training step of one element, or of one vector of elements. Twin: extrap_kernels/reference/step.py.
//
// Every operation rounds once, in the order written here: with contraction to fused multiply-add off, all backends and
// the reference give the same bits.
#pragma once

#include "core/config.h"
#include "core/macros.h"

namespace extrap {
inline namespace EXTRAP_ISA {

// The options of a launch in the precision of the arithmetic. A: float or double.
template <class A>
struct StepConstants {
  A lr, extrap_lr, decay, shrink, noise_std, grad_scale, clip;
  Extrapolation extrapolation;
  // raw: the rule sees the gradient as it is, which one branch tells instead of four.
  bool extrapolates, adaptive, adopts, raw, scaled, clipped, maximize, coupled, decoupled, gradient_noise;

  static EXTRAP_HD bool is_coupled(const StepConfig& c, bool own_decay) {
    return c.weight_decay != 0 && !own_decay && c.decoupled_weight_decay == 0;
  }

  // own_decay: the rule does the weight decay itself.
  EXTRAP_HD StepConstants(const StepConfig& c, bool own_decay)
      : lr(static_cast<A>(c.lr)),
        extrap_lr(static_cast<A>(inner_lr(c))),
        decay(static_cast<A>(c.weight_decay)),
        shrink(static_cast<A>(1.0 - c.lr * c.weight_decay)),
        noise_std(static_cast<A>(c.noise_std)),
        grad_scale(static_cast<A>(c.grad_scale)),
        clip(static_cast<A>(c.clip)),
        // A direction that is not finite moves nothing by a learning rate of 0.
        extrapolation(extrap_lr == 0 ? Extrapolation::none : c.extrapolation),
        extrapolates(c.phase == Phase::extrapolate),
        adaptive(c.extrap_scale == ExtrapolationScale::adaptive),
        adopts(extrap::adopts(c)),
        raw(c.grad_scale == 1 && c.clip == 1 && c.maximize == 0 && !is_coupled(c, own_decay)),
        scaled(c.grad_scale != 1),
        clipped(c.clip != 1),
        maximize(c.maximize != 0),
        coupled(is_coupled(c, own_decay)),
        decoupled(c.weight_decay != 0 && !own_decay && c.decoupled_weight_decay != 0),
        gradient_noise(c.noise != Noise::none && c.noise_scale == NoiseScale::gradient) {}
};

// The gradient of the loss itself. V: A, or a vector of A.
template <class V, class A>
EXTRAP_HD V unscaled_gradient(const StepConstants<A>& c, V g) {
  if (c.scaled) g = g / c.grad_scale;
  if (c.clipped) g = g * c.clip;
  return c.maximize ? -g : g;
}

// The gradient as the rule sees it.
template <class V, class A>
EXTRAP_HD V prepared_gradient(const StepConstants<A>& c, V g, V x) {
  if (c.raw) return g;
  g = unscaled_gradient(c, g);
  return c.coupled ? g + x * c.decay : g;
}

// noise_std * s for noise in units of the gradient's absolute value: of that, a zero is positive.
template <class V, class A>
EXTRAP_HD V gradient_amplitude(const StepConstants<A>& c, V l) {
  return (l <= A(0) ? A(0) - l : l) * c.noise_std;
}

// x = p where somebody changed the parameter since the last step; elsewhere the base iterate, of which a
// low-precision parameter holds only the rounded value.
template <class V>
EXTRAP_HD V adopted_base(V x, V rounded, V param) {
  return param == rounded ? x : param;
}

// x where it is not stored: y = x - m * inner_lr, with the first moment m as it is stored.
template <class V, class A>
EXTRAP_HD V recovered_base(V y, V m, A inner_lr) {
  return y + m * inner_lr;
}

// The update phase: corrects x and the buffers and returns y without its noise. g and l are prepared. kept(x): x as it
// is stored, which y is made of.
template <class Rule, class V, class A, class Kept>
EXTRAP_HD V corrected_step(const Rule& rule, const StepConstants<A>& c, V g, V l, V& x, V* buffers, const Kept& kept) {
  V u, z;
  rule.direction(g, extrapolated_gradient(c.extrapolation, g, l), x, buffers, u, z);
  if (c.decoupled) x = x * c.shrink;
  x = kept(x - u * c.lr);
  // extragradient: the next gradient, taken at x, extrapolates.
  if (c.extrapolation == Extrapolation::none || c.extrapolation == Extrapolation::extragradient) return x;
  V m = u;
  if constexpr (Rule::Buffers::kCount > 0) m = buffers[0];
  return extrapolated(c.adaptive, x, extrapolation_along(c.extrapolation, u, z, m), c.extrap_lr);
}

// The extrapolate phase: returns y from the gradient at x and leaves all else as it is. g and l are prepared.
template <class Rule, class V, class A>
EXTRAP_HD V extragradient_step(const Rule& rule, const StepConstants<A>& c, V g, V l, V x, const V* buffers) {
  if (c.extrapolation == Extrapolation::none) return x;
  return extrapolated(c.adaptive, x, rule.extragradient_direction(g, l, buffers), c.extrap_lr);
}

// Whether the norm of what is extrapolated along takes x: where the decay joins the gradient, or as a unit.
template <class A>
EXTRAP_HD bool reads_base(const StepConstants<A>& c) {
  return c.adaptive || (c.coupled && c.extrapolation != Extrapolation::momentum);
}

// Whether direction_to_come() reads a buffer.
template <class Rule, class A>
EXTRAP_HD bool reads_buffer(const StepConstants<A>& c, int buffer) {
  return c.extrapolation == Extrapolation::past_update || !Rule::Buffers::is_signed(buffer);
}

// What the step of a rule without norms will extrapolate along, but for the momentum. g and l are prepared; buffers may
// change.
template <class Rule, class V, class A>
EXTRAP_HD V direction_to_come(const Rule& rule, const StepConstants<A>& c, V g, V l, V x, V* buffers) {
  if (c.extrapolation != Extrapolation::past_update)
    return rule.extragradient_direction(g, extrapolated_gradient(c.extrapolation, g, l), buffers);
  V u, z;
  rule.direction(g, l, x, buffers, u, z);
  return u;
}

}  // namespace EXTRAP_ISA
}  // namespace extrap
