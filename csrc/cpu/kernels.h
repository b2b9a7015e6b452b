// What each object of cpu/kernels.cpp offers, once for each instruction set.
#pragma once

#include "core/config.h"
#include "core/table.h"

namespace extrap {

// Steps `count` elements of a tensor from element `begin`, which is a multiple of 64. `streaming` lets y bypass the
// caches.
using StepKernel = void (*)(const StepConfig& config, const TensorEntry& tensor, int64_t begin, int64_t count,
                            bool streaming);

// Sum of squares in double precision, in an order that does not depend on the instruction set.
using SquareSumKernel = double (*)(const void* x, int64_t count);

struct CpuKernels {
  // Null where the rule has no such kernel.
  StepKernel (*step)(const char* rule, int buffers, DType param, bool gradient_like_param);
  SquareSumKernel (*square_sum)(DType param);
};

namespace portable {
extern const CpuKernels kernels;
}
namespace avx2 {
extern const CpuKernels kernels;
}
namespace avx512 {
extern const CpuKernels kernels;
}

}  // namespace extrap
