// What every kernel is made of: a block that walks over the chunks of a launch in phases, each of which all threads
// finish before the next begins. The device runs the threads side by side, the emulation one after the other.
#pragma once

#include "cuda/launch_table.h"

namespace extrap::cuda {

// The thread that looks ahead: of the last warp, so that the first one is not late, where single threads work.
constexpr int kLookingAhead = kThreads - kWarp;

// Kernel: begin(table, shared) on one thread; prepare(table, unit, shared, prepared) on one thread for each unit, while
// the others work on the unit before; work(table, shared, prepared, warp) in each warp; then complete(table, shared,
// prepared, block); and finish(table, shared, block) in the block that is done last.
template <class Kernel, class Block>
EXTRAP_HD void run_block(const LaunchTable& table, typename Kernel::Shared& shared, const Block& block) {
  block.on_first_thread([&] {
    Kernel::begin(table, shared);
    if (block.index() < table.units) Kernel::prepare(table, block.index(), shared, shared.prepared[0]);
  });
  int now = 0;
  for (int unit = block.index(); unit < table.units; unit += block.count()) {
    block.on_each_warp([&](const auto& warp) {
      // Finding a tensor takes as long as several accesses to memory, one after the other.
      warp.each([&](int thread) {
        if (thread == kLookingAhead && unit + block.count() < table.units)
          Kernel::prepare(table, unit + block.count(), shared, shared.prepared[1 - now]);
      });
      Kernel::work(table, shared, shared.prepared[now], warp);
    });
    Kernel::complete(table, shared, shared.prepared[now], block);
    now = 1 - now;
  }
  block.on_first_thread([&] {
    shared.is_last = block.arrive(table.workspace.block_arrivals) == block.count() - 1;
    if (shared.is_last) *table.workspace.block_arrivals = 0;
  });
  if (shared.is_last) Kernel::finish(table, shared, block);
}

// The sums over each `count` lanes, a power of two, left in the first of them; always in the same order.
template <int kValues, int kLanes, class Block>
EXTRAP_HD void reduce_lanes(double (&lanes)[kValues][kLanes], int groups, int count, const Block& block) {
  constexpr int kRadix = 8;  // fewer waits for all threads than with 2
  const int spacing = count;
  while (count > 1) {
    const int terms = count < kRadix ? count : kRadix;
    count /= terms;
    block.on_each_thread([&](int thread) {
      for (int i = thread; i < kValues * groups * count; i += kThreads) {
        const int group = i / count;
        double* to = lanes[group % kValues] + group / kValues * spacing + i % count;
        double sum = *to;
        EXTRAP_UNROLL
        for (int k = 1; k < kRadix; ++k)
          if (k < terms) sum += to[k * count];
        *to = sum;
      }
    });
  }
}

}  // namespace extrap::cuda
