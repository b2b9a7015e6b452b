// Every template of csrc/core as device code; compiled by tests/test_device_code.py, never run.
#include "core/dtype.h"
#include "core/noise.h"
#include "core/rules.h"
#include "core/step.h"

using namespace extrap;

template <template <class> class Rule, class A>
__global__ void one_step(const StepConfig config, const TensorEntry t, A* values) {
  const StepConstants<A> c(config, Rule<A>::kOwnDecay);
  const Rule<A> rule(config, t);
  A buffers[2] = {values[0], values[1]};
  A x = values[2];
  const A g = prepared_gradient(c, values[3], x);
  values[4] = corrected_step(rule, c, g, g, x, buffers);
  values[5] = adopted_base(x, g, values[6]) - rule.extragradient_direction(g, g, buffers) * c.extrap_lr;
}

#define EXTRAP_INSTANTIATE(Rule, name)                                                     \
  template __global__ void one_step<Rule, float>(const StepConfig, const TensorEntry, float*); \
  template __global__ void one_step<Rule, double>(const StepConfig, const TensorEntry, double*);
EXTRAP_FOR_EACH_RULE(EXTRAP_INSTANTIATE)

__global__ void four_normals(uint32_t counter, uint64_t key, float* out, Float16* narrow) {
  const auto words = philox4x32<uint32_t>({{counter, 0u, 1u, 2u}}, key);
  const auto gaussian = gaussian_noise<float>(words);
  const auto uniform = uniform_noise<float>(words);
  for (int k = 0; k < 4; ++k) {
    out[k] = gaussian.lane[k] + uniform.lane[k];
    narrow[k] = to_float16(to_float(narrow[k]) + out[k]);
  }
}
