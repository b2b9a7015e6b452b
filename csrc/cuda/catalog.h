// Every kernel by rule and dtypes: on a device, where this build has CUDA, or emulated on the host.
#pragma once

#include "core/config.h"
#include "cuda/kernels.h"

namespace extrap::cuda {

// gradient_like_param: gradients have the dtype of the parameters, else that of the base iterate. All null where there
// is no such rule.
RuleLaunches emulated_rule(const char* name, int buffers, DType param, bool gradient_like_param);
SumLaunches emulated_sums(DType dtype);

RuleLaunches device_rule(const char* name, int buffers, DType param, bool gradient_like_param);
SumLaunches device_sums(DType dtype);

// Why no device can be used, in the words of the CUDA runtime; null where one can.
const char* device_problem();

// For tests: only so many units, the last ones of each launch, are emulated, or all of them where this is 0; and how
// many launches were emulated.
extern int emulated_tail;
extern int emulated_launches;

}  // namespace extrap::cuda
