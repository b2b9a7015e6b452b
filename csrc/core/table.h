// The tensors of a launch, and the chunks that the work is cut into.
#pragma once

#include <cstdint>

#include "core/macros.h"

namespace extrap {

constexpr int kMaxBuffers = 2;

struct TensorEntry {
  int64_t numel;   // in real numbers: a complex element counts twice
  void* y;         // the parameter
  void* base;      // x; `y` itself where the two never differ
  void* base_low;  // the low bytes of x where it is split; else null
  void* buffers[kMaxBuffers];
  void* exponents[kMaxBuffers];  // of the blocks of each buffer; null where it has none
  const void* gradient;          // null: the tensor is left out of this step
  const void* local;             // this worker's own gradient, or null where it is the gradient
  double step;                   // count after this step
  double inner_lr;               // with which y was made of x, where that is recovered from y; 0 where y holds x
  const double* rms;             // of x before the step, one for each row of the noise scale; null where there is none
  int64_t row_stride;            // element i in memory lies in row (i / row_stride) % rows
  int64_t rows;
  // What a process holds of a tensor that it shares with others: extents of elements that follow each other in the
  // whole tensor, read row by row. The extents begin `stride` apart, the first at `offset`. Other tensors are one
  // extent.
  int64_t offset, extent, stride;
  double trust;    // of rules that scale by norms; 1 for all others
  uint32_t index;  // position in the optimizer
};

struct Chunk {
  int32_t tensor;
  int64_t begin, count;
};

inline namespace EXTRAP_ISA {

// Position in the whole tensor of element i in memory; the noise depends on it.
EXTRAP_HD int64_t position(const TensorEntry& t, int64_t i) {
  return t.offset + i / t.extent * t.stride + i % t.extent;
}

// How many elements from i on follow each other in the whole tensor.
EXTRAP_HD int64_t extent_left(const TensorEntry& t, int64_t i) { return t.extent - i % t.extent; }

}  // namespace EXTRAP_ISA
}  // namespace extrap
