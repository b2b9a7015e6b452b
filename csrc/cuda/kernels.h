// The kernels of each rule and dtype combination: as they are launched on a device, or emulated on the host.
#pragma once

#include <cstring>

#include "core/rules.h"
#include "cuda/step_kernel.h"
#include "cuda/sum_kernel.h"

namespace extrap::cuda {

struct Target {
  int device;
  void* stream;  // cudaStream_t
};

// Carries out the units of a table.
using Launch = void (*)(const LaunchTable& table, const Target& target);

// All null where there is no such rule; `norms` where the rule needs none.
struct RuleLaunches {
  Launch step, step_with_noise, norms;
};

struct SumLaunches {
  Launch rows;   // of x, in the arithmetic type of parameters of a dtype
  Launch total;  // of gradients stored in a dtype
};

// Runner<Kernel>::launch carries a kernel out.
template <template <class> class Runner, template <class> class Rule, class P, class G>
RuleLaunches launches_of() {
  RuleLaunches launches{Runner<StepKernel<Rule, P, G, false>>::launch, Runner<StepKernel<Rule, P, G, true>>::launch,
                        nullptr};
  if constexpr (Rule<float>::kNorm != Norm::none)
    launches.norms = Runner<SumKernel<NormSource<Rule, P, G>, SumsTo::norms>>::launch;
  return launches;
}

template <template <class> class Runner, class P, class G>
RuleLaunches find_rule(const char* name, int buffers) {
#define EXTRAP_TRY_RULE(Rule, rule_name) \
  if (strcmp(name, rule_name) == 0 && buffers == Rule<float>::kBuffers) return launches_of<Runner, Rule, P, G>();
  EXTRAP_FOR_EACH_RULE(EXTRAP_TRY_RULE)
#undef EXTRAP_TRY_RULE
  return {};
}

template <template <class> class Runner, class T>
SumLaunches find_sums() {
  using A = typename Storage<T>::Value;
  return {Runner<SumKernel<BufferSource<A, kBase>, SumsTo::rows>>::launch,
          Runner<SumKernel<BufferSource<T, kGradient>, SumsTo::total>>::launch};
}

}  // namespace extrap::cuda
