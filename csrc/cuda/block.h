// What every kernel is made of: a block that walks over the chunks of a launch in phases, each of which all threads
// finish before the next begins. The device runs the threads side by side, the emulation one after the other.
#pragma once

#include "cuda/launch_table.h"

namespace extrap::cuda {

// Kernel: prepare(table, unit, is_first, shared) on one thread; work(table, shared, thread) on each; then
// complete(table, shared, block); and finish(table, shared, block) in the block that is done last.
template <class Kernel, class Block>
EXTRAP_HD void run_block(const LaunchTable& table, typename Kernel::Shared& shared, const Block& block) {
  for (int unit = block.index(); unit < table.units; unit += block.count()) {
    block.on_first_thread([&] { Kernel::prepare(table, unit, unit == block.index(), shared); });
    block.on_each_thread([&](int thread) { Kernel::work(table, shared, thread); });
    Kernel::complete(table, shared, block);
  }
  block.on_first_thread([&] {
    shared.is_last = block.arrive(table.workspace.block_arrivals) == block.count() - 1;
    if (shared.is_last) *table.workspace.block_arrivals = 0;
  });
  if (shared.is_last) Kernel::finish(table, shared, block);
}

// The sum over each `count` lanes, a power of two, left in the first of them; always in the same order.
template <class Block>
EXTRAP_HD void reduce_lanes(double* lanes, int groups, int count, const Block& block) {
  for (int half = count / 2; half > 0; half /= 2)
    block.on_each_thread([&](int thread) {
      for (int k = thread; k < groups * half; k += kThreads) {
        double* to = lanes + k / half * count + k % half;
        *to += to[half];
      }
    });
}

}  // namespace extrap::cuda
