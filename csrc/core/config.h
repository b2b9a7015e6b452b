// The options of one launch: the same for every tensor in it. Twin: extrap_kernels/scalars.py.
#pragma once

#include <cstdint>

#include "core/direction.h"
#include "core/dtype.h"
#include "core/noise.h"

namespace extrap {

// How the numbers of a tensor's step lie in memory.
struct TensorFormats {
  DType param, gradient, base, signed_buffer, unsigned_buffer;
};

constexpr bool operator==(const TensorFormats& a, const TensorFormats& b) {
  return a.param == b.param && a.gradient == b.gradient && a.base == b.base && a.signed_buffer == b.signed_buffer &&
         a.unsigned_buffer == b.unsigned_buffer;
}

// extrapolate: the first half of an extragradient step, which writes y alone. update: every other step.
enum class Phase : int64_t { update, extrapolate };
constexpr const char* kPhaseNames[] = {"update", "extrapolate"};

// What a rule needs the norm of for each tensor, besides that of x, to scale its step.
enum class Norm : uint8_t { none, gradient, update };
constexpr const char* kNormNames[] = {"none", "gradient", "update"};

using Flag = int64_t;  // 0 or 1

// X(type, name, default). Each takes 8 bytes, in the order in which Python packs them into a row.
#define EXTRAP_FOR_EACH_SCALAR(X)                                   \
  X(double, lr, 0)                                                  \
  X(double, extrap_lr, 0)                                           \
  X(double, extrap_ratio, 1)                                        \
  X(double, weight_decay, 0)                                        \
  X(double, momentum, 0)                                            \
  X(double, dampening, 0)                                           \
  X(double, beta1, 0)                                               \
  X(double, beta2, 0)                                               \
  X(double, eps, 0)                                                 \
  X(double, trust_coefficient, 1)                                   \
  X(double, noise_std, 0)                                           \
  X(double, grad_scale, 1)                                          \
  X(double, clip, 1)                                                \
  X(uint64_t, key, 0)  /* of the noise: seed + rank */              \
  X(uint64_t, seed, 0) /* of the rounding of the state */           \
  X(Phase, phase, Phase::update)                                    \
  X(Extrapolation, extrapolation, Extrapolation::none)              \
  X(ExtrapolationScale, extrap_scale, ExtrapolationScale::absolute) \
  X(Noise, noise, Noise::none)                                      \
  X(NoiseScale, noise_scale, NoiseScale::absolute)                  \
  X(Flag, nesterov, 0)                                              \
  X(Flag, maximize, 0)                                              \
  X(Flag, decoupled_weight_decay, 0)                                \
  X(Flag, layer_adaptation, 1) /* of rules with a norm */

struct StepConfig {
#define EXTRAP_FIELD(Type, name, initial) Type name = static_cast<Type>(initial);
  EXTRAP_FOR_EACH_SCALAR(EXTRAP_FIELD)
#undef EXTRAP_FIELD
};

#define EXTRAP_COUNT(Type, name, initial) +1
static_assert(sizeof(StepConfig) == 8 * (0 EXTRAP_FOR_EACH_SCALAR(EXTRAP_COUNT)));
#undef EXTRAP_COUNT

inline namespace EXTRAP_ISA {

// The inner learning rate: how far y lies from x.
EXTRAP_HD double inner_lr(const StepConfig& c) { return c.extrap_lr * c.extrap_ratio; }

// Whether a parameter that does not hold the rounded x has been changed and is the new x: before the first half of an
// extragradient step, and in every step without extrapolation and noise.
EXTRAP_HD bool adopts(const StepConfig& c) {
  return c.phase == Phase::extrapolate || (c.extrapolation == Extrapolation::none && c.noise == Noise::none);
}

// Whether the noise is in units of the root mean square of x, by tensor or by row.
EXTRAP_HD bool scaled_by_rms(const StepConfig& c) {
  return c.noise != Noise::none && (c.noise_scale == NoiseScale::tensor || c.noise_scale == NoiseScale::filter);
}

}  // namespace EXTRAP_ISA
}  // namespace extrap
