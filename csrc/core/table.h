// The tensors of a launch, and the chunks that the work is cut into.
#pragma once

#include <cstdint>

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
  double trust;    // of rules that scale by norms; 1 for all others
  uint32_t index;  // position in the optimizer
};

struct Chunk {
  int32_t tensor;
  int64_t begin, count;
};

}  // namespace extrap
