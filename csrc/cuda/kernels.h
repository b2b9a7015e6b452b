// The kernels of each rule and combination of formats: as they are launched on a device, or emulated on the host.
#pragma once

#include "core/dispatch.h"
#include "cuda/rule_sources.h"
#include "cuda/step_kernel.h"
#include "cuda/sum_kernel.h"

namespace extrap::cuda {

struct Target {
  int device;
  void* stream;  // cudaStream_t
};

// Carries out the units of a table.
using Launch = void (*)(const LaunchTable& table, const Target& target);

// All null where there is no such rule, or none for these formats; `norms` where the rule needs none; `direction` where
// there is nothing that a DirectionSource takes.
struct RuleLaunches {
  Launch step, step_with_noise, norms, direction;
};

struct SumLaunches {
  Launch rows;   // of x, stored in a dtype: in bfloat16 it is split
  Launch total;  // of gradients, or of anything that stands in their column, stored in a dtype
};

// Runner<Kernel>::launch carries a kernel out.
template <template <class> class Runner, template <class> class Rule, class Types>
RuleLaunches launches_of() {
  RuleLaunches launches{Runner<StepKernel<Rule, Types, false>>::launch, Runner<StepKernel<Rule, Types, true>>::launch,
                        nullptr, nullptr};
  if constexpr (DirectionSource<Rule, Types>::kExists)
    launches.direction = Runner<SumKernel<DirectionSource<Rule, Types>, SumsTo::total>>::launch;
  if constexpr (Rule<float>::kNorm != Norm::none)
    launches.norms = Runner<SumKernel<NormSource<Rule, Types>, SumsTo::norms>>::launch;
  return launches;
}

template <template <class> class Runner, template <class> class Rule, class Types>
RuleLaunches launches_of(RuleTag<Rule>, TypeTag<Types>) {
  return launches_of<Runner, Rule, Types>();
}

template <template <class> class Runner, class P, class G>
RuleLaunches find_rule(const char* name, int buffers, const TensorFormats& formats) {
  return visit_rule<RuleLaunches>(name, buffers, [&](auto rule) {
    constexpr bool kHasBuffers = decltype(rule)::Facts::Buffers::kCount > 0;
    return visit_state<RuleLaunches, P, G, kHasBuffers>(formats,
                                                        [&](auto types) { return launches_of<Runner>(rule, types); });
  });
}

template <template <class> class Runner>
SumLaunches find_sums(DType dtype) {
  return visit_format<SumLaunches>(dtype, [](auto tag) {
    using T = typename decltype(tag)::Type;
    using Base = std::conditional_t<std::is_same_v<T, BFloat16>, Float24, typename Format<T>::Value>;
    return SumLaunches{Runner<SumKernel<BufferSource<Base, kBase>, SumsTo::rows>>::launch,
                       Runner<SumKernel<BufferSource<T, kGradient>, SumsTo::total>>::launch};
  });
}

}  // namespace extrap::cuda
