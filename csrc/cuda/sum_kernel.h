// Sums of squares in double precision, deterministic: by position modulo what a block or warp reads at a time, over
// these positions, then over the segments of a row in their order. What is summed is said by a source.
#pragma once

#include <new>
#include <type_traits>

#include "core/layout.h"
#include "core/step.h"
#include "core/table.h"
#include "cuda/block.h"
#include "cuda/block_tile.h"
#include "cuda/tile.h"

namespace extrap::cuda {

// The rows of a tensor, which may be interleaved in memory.
struct Rows {
  int64_t count, length, stride;

  EXTRAP_HD bool contiguous() const { return stride == length; }

  EXTRAP_HD int64_t position(int64_t row, int64_t k) const { return (k / stride * count + row) * stride + k % stride; }
};

// The square of a float is exact in double precision, so that one rounding is the same as two: half as many
// instructions for GPUs that have few units of that precision.
EXTRAP_HD void add_square(float value, double& sum) {
  sum = ::fma(static_cast<double>(value), static_cast<double>(value), sum);
}
EXTRAP_HD void add_square(double value, double& sum) { sum += value * value; }

// The squares of one buffer: of x by row, or of the gradients. kColumn: kBase of x alone, which may be split.
template <class T, Column kColumn>
struct BufferSource {
  static constexpr int kValues = 1;
  static constexpr bool kReadsAhead = true;
  static constexpr int kPart = kWidestAccess / static_cast<int>(sizeof(T));
  PointerTo<T> buffer;

  EXTRAP_HD BufferSource(const LaunchTable& table, int i)
      : buffer(pointer_to<T>(table.pointer<void>(kColumn, i), table.pointer<void>(kBaseLow, i))) {}

  EXTRAP_HD bool aligned() const { return Tile<T, kPart>::aligned(buffer); }

  template <class Place>
  EXTRAP_HD void add(const Part<kPart>& part, const Place& place, double (&sums)[kValues][kPart]) const {
    Tile<T, kPart> values;
    values.load(buffer, part, place);
    EXTRAP_UNROLL
    for (int k = 0; k < kPart; ++k) add_square(values[k], sums[0][k]);
  }
};

enum class SumsTo { norms, rows, total };

// kTo: where the sums go. Rows are filled by slot, norms two for each tensor; a total takes the sums of all tensors
// together.
template <class Source, SumsTo kTo>
struct SumKernel {
  static constexpr int kValues = Source::kValues;
  static constexpr int kResidentBlocks = 4;
  static constexpr int kPart = Source::kPart;
  // A thread has a sum for each element of a part, so that the order does not depend on which elements it takes.
  static constexpr int kLanes = kThreads * kPart;

  // A segment, or segments of several rows, and their tensor.
  struct Prepared {
    Rows rows;
    int number, segments;  // of the tensor in the launch, -1: none yet; of a row
    int team;              // threads that sum a row together: the block, or a warp of each short row
    int64_t row;           // the first one of the block
    int64_t begin, end;    // in the row
    uint32_t slot;
    bool aligned;
    alignas(Source) unsigned char source[sizeof(Source)];

    EXTRAP_HD const Source& values() const { return *reinterpret_cast<const Source*>(source); }
  };

  struct Shared {
    double lanes[kValues][kLanes];
    Prepared prepared[2];
    bool is_last_segment, is_last;
  };

  static EXTRAP_HD void deliver(const LaunchTable& table, const Shared& s, const Prepared& now, int thread) {
    if constexpr (kTo == SumsTo::rows) {
      if (thread >= kThreads / now.team || now.row + thread >= now.rows.count) return;
      const double sum = s.lanes[0][thread * now.team * kPart];
      table.workspace.row_rms[now.slot + static_cast<uint32_t>(thread)] =
          table.sums_only ? sum : ::sqrt(sum / static_cast<double>(now.rows.length));
    } else if (thread < kValues) {
      table.workspace.norm_sums[kValues * now.slot + static_cast<uint32_t>(thread)] = s.lanes[thread][0];
    }
  }

  static EXTRAP_HD void begin(const LaunchTable&, Shared& s) { s.prepared[0].number = s.prepared[1].number = -1; }

  static EXTRAP_HD void set_tensor(const LaunchTable& table, int i, Prepared& now) {
    now.number = i;
    new (now.source) Source(table, i);
    now.rows = {table.rows(i), table.numel(i) / table.rows(i), table.row_stride(i)};
    now.segments = static_cast<int>((now.rows.length + kSegment - 1) / kSegment);
    now.team = kThreads / rows_at_once(now.rows.count, now.rows.length);
    now.aligned = now.values().aligned() && (now.rows.count == 1 || now.rows.stride % kPart == 0);
  }

  static EXTRAP_HD_OUT_OF_LINE void prepare(const LaunchTable& table, int unit, const Shared&, Prepared& now) {
    const int i = table.find(unit);
    if (i != now.number) set_tensor(table, i, now);
    const uint32_t segment = static_cast<uint32_t>(unit) - table.get<uint32_t>(kFirst, i);
    now.row = segment / static_cast<uint32_t>(now.segments) * static_cast<uint32_t>(kThreads / now.team);
    now.begin = segment % static_cast<uint32_t>(now.segments) * kSegment;
    now.end = now.begin + kSegment < now.rows.length ? now.begin + kSegment : now.rows.length;
    now.slot =
        kTo == SumsTo::rows ? table.get<uint32_t>(kSlot, i) + static_cast<uint32_t>(now.row) : static_cast<uint32_t>(i);
  }

  // place(element): where an element of the segment lies. kTeam: now.team, known to the compiler, which then loads
  // several parts before it adds where none may be scattered.
  template <int kTeam, class Place>
  static EXTRAP_HD void add_parts(const Prepared& now, int thread, const Place& place, double (&sums)[kValues][kPart]) {
    Part<kPart> part(now.aligned, thread % kTeam, static_cast<int>(now.end - now.begin));
    if (Source::kReadsAhead && now.aligned) {
      part.stride = 1;  // as it is
      for (; part.left >= kPart; part.advance(kTeam)) now.values().add(part, place, sums);
    }
    EXTRAP_NO_UNROLL
    for (; part.left > 0; part.advance(kTeam)) now.values().add(part, place, sums);
  }

  template <int kTeam>
  static EXTRAP_HD void add_row(const Prepared& now, int thread, double (&sums)[kValues][kPart]) {
    const int64_t row = now.row + thread / kTeam;
    if (row >= now.rows.count) return;
    if (kTo != SumsTo::rows || now.rows.contiguous()) {
      const int64_t begin = row * now.rows.length + now.begin;
      add_parts<kTeam>(now, thread, [&](int element) { return begin + element; }, sums);
    } else {
      add_parts<kTeam>(now, thread, [&](int element) { return now.rows.position(row, now.begin + element); }, sums);
    }
  }

  template <class Warp>
  static EXTRAP_HD void work(const LaunchTable&, Shared& s, const Prepared& now, const Warp& warp) {
    warp.each([&](int thread) { add_up(s, now, thread); });
  }

  static EXTRAP_HD void add_up(Shared& s, const Prepared& now, int thread) {
    double sums[kValues][kPart] = {};
    if (kTo == SumsTo::rows && now.team == kWarp)
      add_row<kWarp>(now, thread, sums);
    else
      add_row<kThreads>(now, thread, sums);
    const Part<kPart> lanes(now.aligned, thread, kLanes);
    EXTRAP_UNROLL
    for (int v = 0; v < kValues; ++v) {
      EXTRAP_UNROLL
      for (int k = 0; k < kPart; ++k) s.lanes[v][lanes[k]] = sums[v][k];
    }
  }

  template <class Block>
  static EXTRAP_HD void complete(const LaunchTable& table, Shared& s, const Prepared& now, const Block& block) {
    reduce_lanes(s.lanes, kThreads / now.team, now.team * kPart, block);
    if (now.segments == 1) return block.on_each_thread([&](int thread) { deliver(table, s, now, thread); });
    block.on_first_thread([&] {
      double* to = table.workspace.partial_sums + kValues * (partial(table, now) + now.begin / kSegment);
      for (int v = 0; v < kValues; ++v) to[v] = s.lanes[v][0];
      int32_t* arrivals = table.workspace.row_arrivals + now.slot;
      s.is_last_segment = block.arrive(arrivals) == now.segments - 1;
      if (s.is_last_segment) *arrivals = 0;
    });
    const bool is_last_segment = s.is_last_segment;
    block.sync();  // the first thread may write it again from here on
    if (is_last_segment) add_segments(table, s, now, block);
  }

  // Where the partial sums of the row begin.
  static EXTRAP_HD int64_t partial(const LaunchTable& table, const Prepared& now) {
    return static_cast<int64_t>(table.get<uint32_t>(kFirst, now.number)) + now.row * now.segments;
  }

  template <class Block>
  static EXTRAP_HD void add_segments(const LaunchTable& table, Shared& s, const Prepared& now, const Block& block) {
    const double* partials = table.workspace.partial_sums + kValues * partial(table, now);
    block.on_each_thread([&](int thread) {
      for (int v = 0; v < kValues; ++v) {
        double sum = 0;
        for (int k = thread; k < now.segments; k += kThreads) sum += block.read(partials + kValues * k + v);
        s.lanes[v][thread] = sum;
      }
    });
    reduce_lanes(s.lanes, 1, kThreads, block);
    block.on_each_thread([&](int thread) { deliver(table, s, now, thread); });
  }

  template <class Block>
  static EXTRAP_HD void finish(const LaunchTable& table, Shared& s, const Block& block) {
    if constexpr (kTo == SumsTo::total) {
      block.on_each_thread([&](int thread) {
        double sum = 0;
        for (int i = thread; i < table.tensors; i += kThreads)
          if (table.numel(i) > 0) sum += block.read(table.workspace.norm_sums + i);
        s.lanes[0][thread] = sum;
      });
      reduce_lanes(s.lanes, 1, kThreads, block);
      block.on_first_thread([&] { *table.total += s.lanes[0][0]; });
    }
  }
};

}  // namespace extrap::cuda
