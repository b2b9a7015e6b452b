// Every template of csrc/core as device code; compiled by tests/test_device_code.py, never run.
#include "core/formats.h"
#include "core/noise.h"
#include "core/rules.h"
#include "core/step.h"

using namespace extrap;

struct AsItIs {
  template <class V>
  EXTRAP_HD V operator()(V v) const {
    return v;
  }
};

template <template <class> class Rule, class A>
__global__ void one_step(const StepConfig config, const TensorEntry t, A* values) {
  const StepConstants<A> c(config, Rule<A>::kOwnDecay);
  const Rule<A> rule(config, t);
  A buffers[2] = {values[0], values[1]};
  A x = values[2];
  const A g = prepared_gradient(c, values[3], x);
  values[4] = corrected_step(rule, c, g, g, x, buffers, AsItIs());
  values[5] = extragradient_step(rule, c, g, g, adopted_base(x, g, values[6]), buffers);
}

// Names the kernels of every rule and arithmetic type, and so instantiates them.
template <template <class> class... Rules>
constexpr int instantiate(RuleVariants<Rules...>) {
  void (*const in_float[])(StepConfig, TensorEntry, float*) = {one_step<Rules, float>...};
  void (*const in_double[])(StepConfig, TensorEntry, double*) = {one_step<Rules, double>...};
  return sizeof in_float + sizeof in_double;
}
#define EXTRAP_INSTANTIATE(rule) static_assert(instantiate(rules::rule()) > 0);
EXTRAP_FOR_EACH_RULE(EXTRAP_INSTANTIATE)

__global__ void random_numbers(uint64_t key, float* out, Float16* low_precision, BFloat16* moments) {
  const RandomKey random = RandomKey::of(key, 1, 2), rounding = RandomKey::of(key, 1 | kRoundingStream, 2);
  for (int k = 0; k < 4; ++k) {
    out[k] = noise_around(Noise::gaussian, random, k).even + noise_around(Noise::uniform, random, k).odd;
    low_precision[k].bits = Format<Float16>::encode(Format<Float16>::decode<float>(low_precision[k].bits) + out[k]);
    const float moment = Format<BFloat16>::decode<float>(moments[k].bits);
    moments[k].bits = Format<BFloat16>::encode(moment, rounding.bits(static_cast<uint32_t>(k), 0u));
    const uint32_t bits =
        Ops<float>::bits(Format<Float24>::rounded(out[k], rounding.bits(static_cast<uint32_t>(k), 0u)));
    out[k] = Format<Float24>::join<float>(Format<Float24>::high(bits), Format<Float24>::low(bits));
  }
}
