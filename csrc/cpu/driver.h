// Runs the kernels of the best instruction set over all chunks of a plan, on several threads.
#pragma once

#include <string>
#include <vector>

#include "core/config.h"
#include "core/table.h"
#include "cpu/kernels.h"

namespace extrap::cpu {

// Instruction sets that this processor has and this build contains, best first.
std::vector<std::string> instruction_sets();

// The kernels in use: those of the best set until select() names another. select() throws std::invalid_argument for a
// set that is not in instruction_sets().
const CpuKernels& selected_kernels();
std::string selected();
void select(const std::string& name);

// At most `threads`, and no more than are worth waking for so many elements. The functions below take all they are
// given.
int useful_threads(int64_t elements, int threads);

// From this many bytes of parameters on, y bypasses the caches: it would not stay in them until it is read again.
constexpr int64_t kStreamingBytes = int64_t{1} << 22;

void step(StepKernel kernel, const StepConfig& config, const std::vector<TensorEntry>& tensors,
          const std::vector<Chunk>& chunks, bool streaming, int threads);

// Of what a step of all tensors will extrapolate along: the sum of squares.
double direction_square_sum(DirectionKernel kernel, const StepConfig& config, const std::vector<TensorEntry>& tensors,
                            const std::vector<Chunk>& chunks, int threads);

// Sum of squares of each tensor's gradient, which has the dtype that the kernel is for.
std::vector<double> gradient_square_sums(SquareSumKernel kernel, size_t element_size,
                                         const std::vector<TensorEntry>& tensors, const std::vector<Chunk>& chunks,
                                         int threads);

// Sums of squares from which a rule that has norms makes its trust ratios: those of x of each tensor, then those of
// what the rule scales.
void trust_square_sums(NormKernel kernel, const StepConfig& config, const std::vector<TensorEntry>& tensors,
                       const std::vector<Chunk>& chunks, int threads, double* sums);

// Sum of squares of each row of x, to where `rms` of each tensor points, within `sums`.
void row_square_sums(SquareSumKernel kernel, size_t element_size, const std::vector<TensorEntry>& tensors,
                     const std::vector<Chunk>& chunks, int threads, std::vector<double>& sums);

}  // namespace extrap::cpu
