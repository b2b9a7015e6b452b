// The CUDA kernels' code, carried out on the host.
#pragma once

#include "cuda/kernels.h"

namespace extrap::cuda {

// As device_rule() and device_sums() of cuda/registry.h.
RuleLaunches emulated_rule(const char* name, int buffers, const TensorFormats& formats);
SumLaunches emulated_sums(DType dtype);

// What each object of testing/emulated_pair.cpp offers, as device_rule_of() of cuda/registry.h.
template <class P, class G>
RuleLaunches emulated_rule_of(const char* name, int buffers, const TensorFormats& formats);

#define EXTRAP_DECLARE_PAIR(P, G) \
  template <>                     \
  RuleLaunches emulated_rule_of<P, G>(const char* name, int buffers, const TensorFormats& formats);
EXTRAP_FOR_EACH_PAIR(EXTRAP_DECLARE_PAIR)
#undef EXTRAP_DECLARE_PAIR

// Whether this build has them: see EXTRAP_TESTING in CMakeLists.txt.
extern const bool emulation_built;
// Only so many units, the last ones of each launch, are emulated, or all of them where this is 0.
extern int emulated_tail;
// How many launches were emulated.
extern int emulated_launches;

}  // namespace extrap::cuda
