// The CUDA kernels' code, carried out on the host.
#pragma once

#include "cuda/kernels.h"

namespace extrap::cuda {

// As device_rule() and device_sums() of cuda/registry.h.
RuleLaunches emulated_rule(const char* name, int buffers, const TensorFormats& formats);
SumLaunches emulated_sums(DType dtype);

// Whether this build has them: see EXTRAP_TESTING in CMakeLists.txt.
extern const bool emulation_built;
// Only so many units, the last ones of each launch, are emulated, or all of them where this is 0.
extern int emulated_tail;
// How many launches were emulated.
extern int emulated_launches;

}  // namespace extrap::cuda
