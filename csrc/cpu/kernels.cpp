// The kernels of every rule and combination of formats. Compiled once for each instruction set, with EXTRAP_ISA naming
// it.
#include "cpu/kernels.h"

#include "core/dispatch.h"
#include "cpu/step.h"
#include "cpu/sums.h"

namespace extrap {
inline namespace EXTRAP_ISA {
namespace {

template <class Rule>
double trust(const StepConfig& config, double norm_x, double norm) {
  return Rule::trust_ratio(config, norm_x, norm);
}

template <class Rule, class Types>
RuleKernels kernels_of() {
  if constexpr (Rule::kNorm == Norm::none)
    return {step<Rule, Types>, direction<Rule, Types>, nullptr, nullptr};
  else
    return {step<Rule, Types>, direction<Rule, Types>, norm<Rule, Types>, trust<Rule>};
}

template <class Tag>
RuleKernels find_formats(const TensorFormats& formats) {
  return visit_pair<RuleKernels>(formats, [&](auto p, auto g) {
    using P = typename decltype(p)::Type;
    using G = typename decltype(g)::Type;
    return visit_state<RuleKernels, P, G, (Tag::Facts::Buffers::kCount > 0)>(formats, [](auto types) {
      using Types = typename decltype(types)::Type;
      return kernels_of<typename Tag::template Of<typename Types::A>, Types>();
    });
  });
}

RuleKernels find_rule(const char* name, int buffers, const TensorFormats& formats) {
  return visit_rule<RuleKernels>(name, buffers, [&](auto tag) { return find_formats<decltype(tag)>(formats); });
}

SquareSumKernel find_square_sum(DType dtype) {
  return visit_format<SquareSumKernel>(dtype, [](auto tag) { return square_sum<typename decltype(tag)::Type>; });
}

SquareSumKernel find_base_square_sum(DType dtype) {
  return dtype == Format<Float24>::kDType ? square_sum<Float24> : find_square_sum(dtype);
}

}  // namespace
}  // namespace EXTRAP_ISA

#define EXTRAP_JOIN(a, b) a##b
#define EXTRAP_KERNELS(isa) EXTRAP_JOIN(kernels_, isa)
const CpuKernels EXTRAP_KERNELS(EXTRAP_ISA) = {find_rule, find_square_sum, find_base_square_sum};

}  // namespace extrap
