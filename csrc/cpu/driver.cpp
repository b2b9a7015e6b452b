#include "cpu/driver.h"

#include <algorithm>
#include <atomic>
#include <stdexcept>

#include "cpu/threads.h"

#if defined(EXTRAP_HAVE_avx2)
#include <cpuid.h>
#endif

namespace extrap::cpu {
namespace {

void add(double& sum, double value) { sum += value; }
void add(NormSums& sum, const NormSums& value) {
  sum.x += value.x;
  sum.scaled += value.scaled;
}

struct InstructionSet {
  const char* name;
  const CpuKernels* kernels;
};

#if defined(EXTRAP_HAVE_avx2)
// Asked by hand: __builtin_cpu_supports("f16c") does not compile with Clang before 17 and GCC before 11.
bool has_f16c() {
  unsigned eax, ebx, ecx, edx;
  return __get_cpuid(1, &eax, &ebx, &ecx, &edx) && (ecx & bit_F16C);
}
#endif

std::vector<InstructionSet> supported() {
  std::vector<InstructionSet> sets;
#if defined(EXTRAP_HAVE_avx512)
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl"))
    sets.push_back({"avx512", &kernels_avx512});
#endif
#if defined(EXTRAP_HAVE_avx2)
  if (__builtin_cpu_supports("avx2") && has_f16c() && __builtin_cpu_supports("fma"))
    sets.push_back({"avx2", &kernels_avx2});
#endif
#if defined(EXTRAP_HAVE_portable)
  sets.push_back({"portable", &kernels_portable});
#endif
  if (sets.empty())
    throw std::runtime_error(
        "this build has CPU kernels for another processor only: it was built with EXTRAP_ISAS=native; reinstall "
        "extrap_kernels here, or build it with EXTRAP_ISAS=all");
  return sets;
}

InstructionSet& current() {
  static InstructionSet set = supported().front();
  return set;
}

// Chunks are handed out in runs: long enough that fetching one costs nothing, short enough that no thread waits long.
constexpr int kRunsPerThread = 32;

// Calls body(begin, end) for runs that make up [0, count), on one thread where the work is not worth waking others.
template <class Body>
void parallel_runs(int64_t count, int threads, const Body& body) {
  if (threads <= 1 || count <= 1) {
    if (count > 0) body(int64_t{0}, count);
    return;
  }
  const int64_t run = std::max<int64_t>(1, count / (static_cast<int64_t>(threads) * kRunsPerThread));
  std::atomic<int64_t> next{0};
  on_threads(threads, [&] {
    for (int64_t begin; (begin = next.fetch_add(run, std::memory_order_relaxed)) < count;)
      body(begin, std::min(begin + run, count));
  });
}

// Calls body(i) for i in [0, count).
template <class Body>
void parallel_for(int64_t count, int threads, const Body& body) {
  parallel_runs(count, threads, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) body(i);
  });
}

// The sum of value(chunk) over the chunks of each tensor, in their order whatever the number of threads.
template <class Sum, class Value>
std::vector<Sum> sums_by_tensor(const std::vector<TensorEntry>& tensors, const std::vector<Chunk>& chunks, int threads,
                                const Value& value) {
  std::vector<Sum> partial(chunks.size()), sums(tensors.size());
  parallel_for(static_cast<int64_t>(chunks.size()), threads, [&](int64_t i) {
    const Chunk& chunk = chunks[static_cast<size_t>(i)];
    partial[static_cast<size_t>(i)] = value(tensors[static_cast<size_t>(chunk.tensor)], chunk);
  });
  for (size_t i = 0; i < chunks.size(); ++i) add(sums[static_cast<size_t>(chunks[i].tensor)], partial[i]);
  return sums;
}

const void* at(const void* buffer, int64_t element, size_t element_size) {
  return static_cast<const char*>(buffer) + static_cast<size_t>(element) * element_size;
}

double base_square_sum(SquareSumKernel kernel, size_t element_size, const TensorEntry& t, int64_t begin,
                       int64_t count) {
  const uint8_t* low = t.base_low ? static_cast<const uint8_t*>(t.base_low) + begin : nullptr;
  return kernel(at(t.base, begin, element_size), low, count);
}

double row_square_sum(SquareSumKernel kernel, size_t element_size, const TensorEntry& t, int64_t row) {
  double sum = 0;
  for (int64_t i = row * t.row_stride; i < t.numel; i += t.rows * t.row_stride)
    sum += base_square_sum(kernel, element_size, t, i, t.row_stride);
  return sum;
}

}  // namespace

std::vector<std::string> instruction_sets() {
  std::vector<std::string> names;
  for (const InstructionSet& set : supported()) names.emplace_back(set.name);
  return names;
}

int useful_threads(int64_t elements, int threads) {
  constexpr int64_t kElementsPerThread = 65536;
  return static_cast<int>(std::min<int64_t>(threads, elements / kElementsPerThread + 1));
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
  parallel_runs(static_cast<int64_t>(chunks.size()), threads, [&](int64_t begin, int64_t end) {
    kernel(config, tensors.data(), chunks.data() + begin, end - begin, streaming);
  });
}

std::vector<double> gradient_square_sums(SquareSumKernel kernel, size_t element_size,
                                         const std::vector<TensorEntry>& tensors, const std::vector<Chunk>& chunks,
                                         int threads) {
  return sums_by_tensor<double>(tensors, chunks, threads, [&](const TensorEntry& t, const Chunk& chunk) {
    return t.gradient ? kernel(at(t.gradient, chunk.begin, element_size), nullptr, chunk.count) : 0.0;
  });
}

double direction_square_sum(DirectionKernel kernel, const StepConfig& config, const std::vector<TensorEntry>& tensors,
                            const std::vector<Chunk>& chunks, int threads) {
  double sum = 0;
  for (const double of_tensor : sums_by_tensor<double>(
           tensors, chunks, threads,
           [&](const TensorEntry& t, const Chunk& chunk) { return kernel(config, t, chunk.begin, chunk.count); }))
    sum += of_tensor;
  return sum;
}

void trust_square_sums(NormKernel kernel, const StepConfig& config, const std::vector<TensorEntry>& tensors,
                       const std::vector<Chunk>& chunks, int threads, double* sums) {
  const auto of_tensors = sums_by_tensor<NormSums>(
      tensors, chunks, threads,
      [&](const TensorEntry& t, const Chunk& chunk) { return kernel(config, t, chunk.begin, chunk.count); });
  for (size_t i = 0; i < tensors.size(); ++i) {
    sums[i] = of_tensors[i].x;
    sums[tensors.size() + i] = of_tensors[i].scaled;
  }
}

void row_square_sums(SquareSumKernel kernel, size_t element_size, const std::vector<TensorEntry>& tensors,
                     const std::vector<Chunk>& chunks, int threads, std::vector<double>& sums) {
  const auto of_tensor =
      sums_by_tensor<double>(tensors, chunks, threads, [&](const TensorEntry& t, const Chunk& chunk) {
        return t.rms && t.rows == 1 ? base_square_sum(kernel, element_size, t, chunk.begin, chunk.count) : 0.0;
      });
  for (size_t i = 0; i < tensors.size(); ++i) {
    const TensorEntry& t = tensors[i];
    if (!t.rms) continue;
    double* out = sums.data() + (t.rms - sums.data());
    if (t.rows == 1)
      out[0] = of_tensor[i];
    else
      parallel_for(t.rows, threads, [&](int64_t row) { out[row] = row_square_sum(kernel, element_size, t, row); });
  }
}

}  // namespace extrap::cpu
