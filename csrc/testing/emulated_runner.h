// Carries a kernel out on the host, block by block and thread by thread in shuffled order: the same functions that the
// device runs, so that they can be tested where there is none.
#pragma once

#include <algorithm>
#include <iterator>
#include <numeric>
#include <random>
#include <utility>
#include <vector>

#include "testing/emulation.h"

namespace extrap::cuda {

// Few, so that each walks over many chunks, and no power of two.
constexpr int kResidentBlocks = 3;

// Lanes in some order, one after the other.
class EmulatedWarp {
 public:
  // first_access: see access_thread.
  EmulatedWarp(std::vector<int> threads, uint64_t first_access)
      : threads_(std::move(threads)), first_access_(first_access) {}

  template <class Phase>
  void each(const Phase& phase) const {
    for (const int thread : threads_) {
      access_thread = first_access_ + static_cast<uint64_t>(thread);
      phase(thread);
    }
  }

  template <class Registers, class Load, class Before, class Exchanged, class After>
  void in_steps(int count, int lanes, const Load& load, const Before& before, const Exchanged& exchanged,
                const After& after) const {
    std::vector<Registers> registers(kWarp);
    const auto of = [&](int thread) -> Registers& { return registers[static_cast<size_t>(thread % kWarp)]; };
    for (int i = 0; i < count; ++i) each([&](int thread) { load(thread, i, of(thread)); });
    for (int i = 0; i < count; ++i) {
      each([&](int thread) { before(thread, i, of(thread)); });
      for (int distance = 1; distance < lanes; distance *= 2) {
        std::vector<Registers> others = registers;
        for (int lane = 0; lane < kWarp; ++lane) {
          std::vector<uint32_t> values;
          exchanged(others[static_cast<size_t>(lane ^ distance)], [&](uint32_t value) { values.push_back(value); });
          auto other = values.begin();
          exchanged(of(lane), [&](uint32_t& value) { value = std::max(value, *other++); });
        }
      }
      each([&](int thread) { after(thread, i, of(thread)); });
    }
  }

 private:
  std::vector<int> threads_;
  uint64_t first_access_;
};

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
    EmulatedWarp(threads_, next_access()).each(phase);
  }

  // Warps in some order, one after the other.
  template <class Phase>
  void on_each_warp(const Phase& phase) const {
    const uint64_t first_access = next_access();
    for (const int first : threads_) {
      if (first % kWarp != 0) continue;
      std::vector<int> lanes;
      std::copy_if(threads_.begin(), threads_.end(), std::back_inserter(lanes),
                   [&](int thread) { return thread / kWarp == first / kWarp; });
      phase(EmulatedWarp(std::move(lanes), first_access));
    }
  }

  int arrive(int32_t* counter) const { return (*counter)++; }
  double read(const double* from) const { return *from; }

 private:
  static uint64_t next_access() {
    static uint64_t phases = 0;
    return kThreads * phases++;
  }

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

}  // namespace extrap::cuda
