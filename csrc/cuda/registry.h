// Every kernel by rule and formats, as it is launched on a device; testing/emulation.h has the same for the host.
#pragma once

#include "cuda/kernels.h"

namespace extrap::cuda {

// All null where there is no such rule, or none for these formats.
RuleLaunches device_rule(const char* name, int buffers, const TensorFormats& formats);
SumLaunches device_sums(DType dtype);

// Why no device can be used, in the words of the CUDA runtime; null where one can.
const char* device_problem();

// What each object of cuda/instantiate.cu offers: the rules for one pair of formats.
template <class P, class G>
RuleLaunches device_rule_of(const char* name, int buffers, const TensorFormats& formats);

#define EXTRAP_DECLARE_PAIR(P, G) \
  template <>                     \
  RuleLaunches device_rule_of<P, G>(const char* name, int buffers, const TensorFormats& formats);
EXTRAP_FOR_EACH_PAIR(EXTRAP_DECLARE_PAIR)
#undef EXTRAP_DECLARE_PAIR

}  // namespace extrap::cuda
