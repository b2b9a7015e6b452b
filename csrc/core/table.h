// The tensors of a launch, and the chunks that the work is cut into.
#pragma once

#include <cstdint>

#include "core/macros.h"

namespace extrap {

constexpr int kMaxBuffers = 2;

struct TensorEntry {
  int64_t numel;  // in real numbers: a complex element counts twice
  void* y;        // the parameter
  void* base;     // x
  void* buffers[kMaxBuffers];
  const void* gradient;
  const void* local;   // this worker's own gradient, or null where it is the gradient
  double step;         // count after this step
  const double* rms;   // of x before the step, one for each row of the noise scale; null where there is none
  int64_t row_stride;  // element i in memory lies in row (i / row_stride) % rows
  int64_t rows;
  // What a process holds of a tensor that it shares with others: runs of elements that follow each other in the whole
  // tensor, read row by row. The runs begin `pitch` apart, the first at `offset`. Other tensors are one run.
  int64_t offset, run, pitch;
  double trust;    // of rules that scale by norms; 1 for all others
  uint32_t index;  // position in the optimizer
};

// Position in the whole tensor of element i in memory; the noise depends on it.
EXTRAP_HD int64_t position(const TensorEntry& t, int64_t i) { return t.offset + i / t.run * t.pitch + i % t.run; }

// How many elements from i on follow each other in the whole tensor.
EXTRAP_HD int64_t run_left(const TensorEntry& t, int64_t i) { return t.run - i % t.run; }

struct Chunk {
  int32_t tensor;
  int64_t begin, count;
};

}  // namespace extrap
