#include "cpu/driver.h"

#include <omp.h>

#include <algorithm>
#include <cmath>
#include <stdexcept>

namespace extrap::cpu {
namespace {

struct InstructionSet {
  const char* name;
  const CpuKernels* kernels;
};

std::vector<InstructionSet> supported() {
  std::vector<InstructionSet> sets;
#if defined(EXTRAP_HAVE_X86_ISAS)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl"))
    sets.push_back({"avx512", &avx512::kernels});
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("f16c") && __builtin_cpu_supports("fma"))
    sets.push_back({"avx2", &avx2::kernels});
#endif
  sets.push_back({"portable", &portable::kernels});
  return sets;
}

InstructionSet& current() {
  static InstructionSet set = supported().front();
  return set;
}

// Chunks are handed out in runs: long enough that fetching one costs nothing, short enough that no thread waits long.
constexpr int kRunsPerThread = 32;

// Calls body(i) for i in [0, count), on one thread where the work is not worth waking others.
template <class Body>
void parallel_for(int64_t count, int threads, const Body& body) {
  if (threads <= 1 || count <= 1) {
    for (int64_t i = 0; i < count; ++i) body(i);
    return;
  }
  const int64_t run = std::max<int64_t>(1, count / (static_cast<int64_t>(threads) * kRunsPerThread));
#pragma omp parallel for schedule(dynamic, run) num_threads(threads)
  for (int64_t i = 0; i < count; ++i) body(i);
}

// Below this many elements a second thread costs more than it saves.
constexpr int64_t kElementsPerThread = 65536;

int useful_threads(const std::vector<TensorEntry>& tensors, int threads) {
  int64_t total = 0;
  for (const TensorEntry& t : tensors) total += t.numel;
  return static_cast<int>(std::min<int64_t>(threads, total / kElementsPerThread + 1));
}

double row_square_sum(SquareSumKernel kernel, size_t element_size, const TensorEntry& t, int64_t row) {
  const char* x = static_cast<const char*>(t.base);
  double sum = 0;
  for (int64_t i = row * t.row_stride; i < t.numel; i += t.rows * t.row_stride)
    sum += kernel(x + static_cast<size_t>(i) * element_size, t.row_stride);
  return sum;
}

}  // namespace

std::vector<std::string> instruction_sets() {
  std::vector<std::string> names;
  for (const InstructionSet& set : supported()) names.emplace_back(set.name);
  return names;
}

const CpuKernels& selected_kernels() { return *current().kernels; }

std::string selected() { return current().name; }

void select(const std::string& name) {
  for (const InstructionSet& set : supported())
    if (name == set.name) {
      current() = set;
      return;
    }
  throw std::invalid_argument("this processor and build have no kernels for the instruction set '" + name + "'");
}

void step(StepKernel kernel, const StepConfig& config, const std::vector<TensorEntry>& tensors,
          const std::vector<Chunk>& chunks, bool streaming, int threads) {
  parallel_for(static_cast<int64_t>(chunks.size()), useful_threads(tensors, threads), [&](int64_t i) {
    const Chunk& chunk = chunks[static_cast<size_t>(i)];
    kernel(config, tensors[static_cast<size_t>(chunk.tensor)], chunk.begin, chunk.count, streaming);
  });
}

void measure_rms(SquareSumKernel kernel, size_t element_size, const std::vector<TensorEntry>& tensors,
                 const std::vector<Chunk>& chunks, std::vector<double>& rms, int threads) {
  threads = useful_threads(tensors, threads);
  std::vector<double> partial(chunks.size());
  parallel_for(static_cast<int64_t>(chunks.size()), threads, [&](int64_t i) {
    const Chunk& chunk = chunks[static_cast<size_t>(i)];
    const TensorEntry& t = tensors[static_cast<size_t>(chunk.tensor)];
    if (t.rms && t.rows == 1)
      partial[static_cast<size_t>(i)] =
          kernel(static_cast<const char*>(t.base) + static_cast<size_t>(chunk.begin) * element_size, chunk.count);
  });
  for (size_t i = 0; i < chunks.size(); ++i) {
    const TensorEntry& t = tensors[static_cast<size_t>(chunks[i].tensor)];
    if (t.rms && t.rows == 1) rms[static_cast<size_t>(t.rms - rms.data())] += partial[i];
  }
  for (const TensorEntry& t : tensors) {
    if (!t.rms) continue;
    double* out = rms.data() + (t.rms - rms.data());
    if (t.rows > 1)
      parallel_for(t.rows, threads, [&](int64_t row) { out[row] = row_square_sum(kernel, element_size, t, row); });
    for (int64_t row = 0; row < t.rows; ++row)
      out[row] = std::sqrt(out[row] / (static_cast<double>(t.numel) / static_cast<double>(t.rows)));
  }
}

}  // namespace extrap::cpu
