// What each object of cpu/kernels.cpp offers, once for each instruction set.
#pragma once

#include "core/config.h"
#include "core/table.h"

namespace extrap {

// Steps the elements of `count` chunks, each of which begins at a multiple of 64. `streaming` lets y bypass the caches.
using StepKernel = void (*)(const StepConfig& config, const TensorEntry* tensors, const Chunk* chunks, int64_t count,
                            bool streaming);

// Sums of squares in double precision, in an order that does not depend on the instruction set.
// low: the low bytes of numbers that are split.
using SquareSumKernel = double (*)(const void* values, const uint8_t* low, int64_t count);

// Sums of squares of x, and of what a rule needs the norm of besides x: Norm::gradient or Norm::update.
struct NormSums {
  double x = 0, scaled = 0;
};

// Of a tensor that has no gradient in this step, zeros. In one pass over `count` elements from `begin`.
using NormKernel = NormSums (*)(const StepConfig& config, const TensorEntry& tensor, int64_t begin, int64_t count);
// The sum of squares of what the step will extrapolate along, likewise.
using DirectionKernel = double (*)(const StepConfig& config, const TensorEntry& tensor, int64_t begin, int64_t count);
using TrustFunction = double (*)(const StepConfig& config, double norm_x, double norm);

// What a rule consists of for one combination of formats. `norm` and `trust` are null where it needs no norms.
// `direction` of a rule with norms takes the momentum alone, if there is one.
struct RuleKernels {
  StepKernel step;
  DirectionKernel direction;
  NormKernel norm;
  TrustFunction trust;
};

struct CpuKernels {
  // All null where there is no such rule, or none for these formats.
  RuleKernels (*rule)(const char* name, int buffers, const TensorFormats& formats);
  SquareSumKernel (*square_sum)(DType dtype);
  // Of base iterates in a dtype: those in bfloat16 are split.
  SquareSumKernel (*base_square_sum)(DType dtype);
};

extern const CpuKernels kernels_portable, kernels_avx2, kernels_avx512;

}  // namespace extrap
