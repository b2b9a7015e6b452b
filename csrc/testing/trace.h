// What the arithmetic of csrc/core does to one element, as lists of operations: to be compared with those of its twins
// in Python, by tests/test_trace_equality.py.
#pragma once

#include <string>
#include <vector>

#include "core/config.h"
#include "testing/recording.h"

namespace extrap::testing {

// What a step takes besides the scalars. The dtypes by torch's names.
struct StepCase {
  std::string rule;
  int buffers;  // names the variant of the rule
  std::string param, gradient;
  double step;          // count after the step
  double norm_x, norm;  // of rules that scale by norms
  double rms;           // of the element's row
  bool has_local;       // this worker's gradient is another one
  bool recovers;        // x is not stored, but recovered
  double inner_lr;      // by this
};

// Inputs and outputs: param (y), base (x), buffer0, buffer1. Inputs alone: gradient, local, noise. Outputs alone, for
// rules that scale by norms: normed_base and normed, of which `norm_x` and `norm` are the norms.
std::vector<Path> traced_step(const StepConfig& config, const StepCase& step);

// "philox":      word0 to word3, a counter                -> word0 to word3
// "noise":       word0 to word3, random                   -> noise0 to noise3
// "rounding":    word0 and word1, halves of a position    -> word0
// "stochastic":  value, a number, and word0, random       -> half, its bits as bfloat16
std::vector<Path> traced_words(const std::string& what, const StepConfig& config, uint32_t index, double step);

}  // namespace extrap::testing
