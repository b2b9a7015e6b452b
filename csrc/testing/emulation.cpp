// Runs the kernels on the host, block by block and thread by thread in shuffled order: the same functions that the
// device runs, so that they can be tested where there is none.
#include "testing/emulation.h"

#include <algorithm>
#include <numeric>
#include <random>

namespace extrap::cuda {

const bool emulation_built = true;
std::vector<Access>* access_log = nullptr;
uint64_t access_thread = 0;
int emulated_tail = 0;
int emulated_launches = 0;

namespace {

// Few, so that each walks over many chunks, and no power of two.
constexpr int kResidentBlocks = 3;

class EmulatedBlock {
 public:
  EmulatedBlock(int index, int count, std::mt19937& random) : index_(index), count_(count), threads_(kThreads) {
    std::iota(threads_.begin(), threads_.end(), 0);
    std::shuffle(threads_.begin(), threads_.end(), random);
  }

  int index() const { return index_; }
  int count() const { return count_; }
  void sync() const {}

  template <class Phase>
  void on_first_thread(const Phase& phase) const {
    phase();
  }

  template <class Phase>
  void on_each_thread(const Phase& phase) const {
    static uint64_t phases = 0;
    for (const int thread : threads_) {
      access_thread = phases * kThreads + static_cast<uint64_t>(thread);
      phase(thread);
    }
    ++phases;
  }

  int arrive(int32_t* counter) const { return (*counter)++; }
  double read(const double* from) const { return *from; }

 private:
  int index_, count_;
  std::vector<int> threads_;
};

template <class Kernel>
struct EmulatedRunner {
  static void launch(const LaunchTable& table, const Target&) {
    static std::mt19937 random;
    ++emulated_launches;
    const bool whole = emulated_tail == 0;
    const int count = whole ? std::max(1, std::min(table.units, kResidentBlocks)) : table.units;
    const int first = whole ? 0 : std::max(0, table.units - emulated_tail);
    std::vector<int> order(static_cast<size_t>(count - first));
    std::iota(order.begin(), order.end(), first);
    std::shuffle(order.begin(), order.end(), random);
    for (const int index : order) {
      typename Kernel::Shared shared;
      memset(static_cast<void*>(&shared), 0xa5, sizeof shared);  // as undefined as on the device
      run_block<Kernel>(table, shared, EmulatedBlock(index, count, random));
    }
  }
};

}  // namespace

RuleLaunches emulated_rule(const char* name, int buffers, const TensorFormats& formats) {
  return visit_pair<RuleLaunches>(formats, [&](auto p, auto g) {
    using P = typename decltype(p)::Type;
    using G = typename decltype(g)::Type;
    return find_rule<EmulatedRunner, P, G>(name, buffers, formats);
  });
}

SumLaunches emulated_sums(DType dtype) { return find_sums<EmulatedRunner>(dtype); }

}  // namespace extrap::cuda
