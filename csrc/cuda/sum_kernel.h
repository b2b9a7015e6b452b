// Sums of squares in double precision, deterministic: by position modulo what a block or warp reads at a time, over
// these positions, then over the segments of a row in their order. What is summed is said by a source.
#pragma once

#include <new>
#include <type_traits>

#include "core/layout.h"
#include "core/step.h"
#include "core/table.h"
#include "cuda/block.h"
#include "cuda/tile.h"

namespace extrap::cuda {

// The rows of a tensor, which may be interleaved in memory.
struct Rows {
  int64_t count, length, stride;

  EXTRAP_HD bool contiguous() const { return stride == length; }

  EXTRAP_HD int64_t position(int64_t row, int64_t k) const { return (k / stride * count + row) * stride + k % stride; }
};

// The squares of one buffer: of x by row, or of the gradients.
template <class T, Column kColumn>
struct BufferSource {
  static constexpr int kValues = 1;
  static constexpr bool kReadsAhead = true;
  static constexpr int kPart = kWidestAccess / static_cast<int>(sizeof(T));
  const T* buffer;

  EXTRAP_HD BufferSource(const LaunchTable& table, int i) : buffer(table.pointer<const T>(kColumn, i)) {}

  EXTRAP_HD bool aligned() const { return Tile<T, kPart>::aligned(buffer); }

  template <class Place>
  EXTRAP_HD void add(const Part<kPart>& part, const Place& place, double (&sums)[kValues][kPart]) const {
    Tile<T, kPart> values;
    values.load(buffer, part, place);
    EXTRAP_UNROLL
    for (int k = 0; k < kPart; ++k) sums[0][k] += static_cast<double>(values[k]) * static_cast<double>(values[k]);
  }
};

// The squares of x and of what the rule scales: the gradient or the update.
template <template <class> class RuleOf, class Types>
struct NormSource {
  using A = typename Types::A;
  using P = typename Types::Param;
  using G = typename Types::Gradient;
  using Base = typename Types::Base;
  using Buffer = typename Types::Signed;
  static_assert(std::is_same_v<Buffer, typename Types::Unsigned>,
                "buffers of several formats are yet to be told apart");
  using Rule = RuleOf<A>;
  static constexpr int kBuffers = Rule::kNorm == Norm::update ? Rule::Buffers::kCount : 0;
  static constexpr int kValues = 2;
  static constexpr bool kReadsAhead = false;
  static constexpr int kPart = kWidestAccess / static_cast<int>(sizeof(A));
  const Base* x;
  const P* y;  // null where it is x, or does not count
  const G* gradient;
  const Buffer* buffers[kBuffers > 0 ? kBuffers : 1];
  StepConstants<A> constants;
  Rule rule;

  static EXTRAP_HD TensorEntry entry(const LaunchTable& table, int i) {
    TensorEntry t{};
    t.step = static_cast<double>(*table.pointer<const float>(kStep, i)) + 1;
    t.trust = 1;
    return t;
  }

  EXTRAP_HD NormSource(const LaunchTable& table, int i)
      : x(table.pointer<const Base>(kBase, i)),
        gradient(table.pointer<const G>(kGradient, i)),
        constants(table.resolved_config(), Rule::kOwnDecay),
        rule(table.config, entry(table, i)) {
    y = table.pointer<const P>(kY, i);
    EXTRAP_UNROLL
    for (int k = 0; k < kBuffers; ++k) buffers[k] = table.pointer<const Buffer>(static_cast<Column>(kBuffer0 + k), i);
  }

  EXTRAP_HD bool aligned() const {
    bool all = Tile<Base, kPart>::aligned(x) && Tile<P, kPart>::aligned(y) && Tile<G, kPart>::aligned(gradient);
    for (int b = 0; b < kBuffers; ++b) all = all && Tile<Buffer, kPart>::aligned(buffers[b]);
    return all;
  }

  template <class Place>
  EXTRAP_HD void load_x(const Part<kPart>& part, const Place& place, Tile<Base, kPart>& xs) const {
    xs.load(x, part, place);
    if (!y) return;
    Tile<P, kPart> ys;
    ys.load(y, part, place);
    EXTRAP_UNROLL
    for (int k = 0; k < kPart; ++k)
      xs.set(k, adopted_base(xs[k], Format<P>::template decode<A>(Format<P>::encode(xs[k])), ys[k]));
  }

  template <class Place>
  EXTRAP_HD void add(const Part<kPart>& part, const Place& place, double (&sums)[kValues][kPart]) const {
    Tile<Base, kPart> xs;
    Tile<Buffer, kPart> moments[kBuffers > 0 ? kBuffers : 1];
    Tile<G, kPart> gs;
    load_x(part, place, xs);
    gs.load(gradient, part, place);
    EXTRAP_UNROLL
    for (int b = 0; b < kBuffers; ++b) moments[b].load(buffers[b], part, place);
    EXTRAP_UNROLL
    for (int k = 0; k < kPart; ++k) {
      if (!part.has(k)) break;
      A u = unscaled_gradient(constants, gs[k]);
      if constexpr (Rule::kNorm == Norm::update) {
        A own[kBuffers], z;
        EXTRAP_UNROLL
        for (int b = 0; b < kBuffers; ++b) own[b] = moments[b][k];
        const A g = u;
        rule.direction(g, g, xs[k], own, u, z);
      }
      sums[0][k] += static_cast<double>(xs[k]) * static_cast<double>(xs[k]);
      sums[1][k] += static_cast<double>(u) * static_cast<double>(u);
      EXTRAP_REREAD_MEMORY();
    }
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

  struct Shared {
    double lanes[kValues][kLanes];
    Rows rows;
    int number, segments;
    int team;            // threads that sum a row together: the block, or a warp of each short row
    int64_t row;         // the first one of the block
    int64_t begin, end;  // in the row
    uint32_t slot;
    bool aligned, is_last_segment, is_last;
    alignas(Source) unsigned char source[sizeof(Source)];

    EXTRAP_HD const Source& values() const { return *reinterpret_cast<const Source*>(source); }
  };

  static EXTRAP_HD void deliver(const LaunchTable& table, const Shared& s, int thread) {
    if constexpr (kTo == SumsTo::rows) {
      if (thread >= kThreads / s.team || s.row + thread >= s.rows.count) return;
      const double sum = s.lanes[0][thread * s.team * kPart];
      table.workspace.row_rms[s.slot + static_cast<uint32_t>(thread)] =
          table.sums_only ? sum : ::sqrt(sum / static_cast<double>(s.rows.length));
    } else if (thread < kValues) {
      table.workspace.norm_sums[kValues * s.slot + static_cast<uint32_t>(thread)] = s.lanes[thread][0];
    }
  }

  static EXTRAP_HD void prepare(const LaunchTable& table, int unit, bool is_first, Shared& s) {
    const int i = table.find(unit);
    if (is_first || i != s.number) {
      s.number = i;
      new (s.source) Source(table, i);
      s.rows = {table.rows(i), table.numel(i) / table.rows(i), table.row_stride(i)};
      s.segments = static_cast<int>((s.rows.length + kSegment - 1) / kSegment);
      s.team = kThreads / rows_at_once(s.rows.count, s.rows.length);
      s.aligned = s.values().aligned() && (s.rows.count == 1 || s.rows.stride % kPart == 0);
    }
    const uint32_t segment = static_cast<uint32_t>(unit) - table.get<uint32_t>(kFirst, i);
    s.row = segment / static_cast<uint32_t>(s.segments) * static_cast<uint32_t>(kThreads / s.team);
    s.begin = segment % static_cast<uint32_t>(s.segments) * kSegment;
    s.end = s.begin + kSegment < s.rows.length ? s.begin + kSegment : s.rows.length;
    s.slot =
        kTo == SumsTo::rows ? table.get<uint32_t>(kSlot, i) + static_cast<uint32_t>(s.row) : static_cast<uint32_t>(i);
  }

  // place(element): where an element of the segment lies. kTeam: s.team, known to the compiler, which then loads
  // several parts before it adds where none may be scattered.
  template <int kTeam, class Place>
  static EXTRAP_HD void add_parts(const Shared& s, int thread, const Place& place, double (&sums)[kValues][kPart]) {
    Part<kPart> part(s.aligned, thread % kTeam, static_cast<int>(s.end - s.begin));
    if (Source::kReadsAhead && s.aligned) {
      part.stride = 1;  // as it is
      for (; part.left >= kPart; part.advance(kTeam)) s.values().add(part, place, sums);
    }
    EXTRAP_NO_UNROLL
    for (; part.left > 0; part.advance(kTeam)) s.values().add(part, place, sums);
  }

  template <int kTeam>
  static EXTRAP_HD void add_row(const Shared& s, int thread, double (&sums)[kValues][kPart]) {
    const int64_t row = s.row + thread / kTeam;
    if (row >= s.rows.count) return;
    if (kTo != SumsTo::rows || s.rows.contiguous()) {
      const int64_t begin = row * s.rows.length + s.begin;
      add_parts<kTeam>(s, thread, [&](int element) { return begin + element; }, sums);
    } else {
      add_parts<kTeam>(s, thread, [&](int element) { return s.rows.position(row, s.begin + element); }, sums);
    }
  }

  static EXTRAP_HD void work(const LaunchTable&, Shared& s, int thread) {
    double sums[kValues][kPart] = {};
    if (kTo == SumsTo::rows && s.team == kWarp)
      add_row<kWarp>(s, thread, sums);
    else
      add_row<kThreads>(s, thread, sums);
    const Part<kPart> lanes(s.aligned, thread, kLanes);
    EXTRAP_UNROLL
    for (int v = 0; v < kValues; ++v) {
      EXTRAP_UNROLL
      for (int k = 0; k < kPart; ++k) s.lanes[v][lanes[k]] = sums[v][k];
    }
  }

  // Over each `count` lanes.
  template <class Block>
  static EXTRAP_HD void reduce(Shared& s, int groups, int count, const Block& block) {
    for (int v = 0; v < kValues; ++v) reduce_lanes(s.lanes[v], groups, count, block);
  }

  template <class Block>
  static EXTRAP_HD void complete(const LaunchTable& table, Shared& s, const Block& block) {
    reduce(s, kThreads / s.team, s.team * kPart, block);
    if (s.segments == 1) return block.on_each_thread([&](int thread) { deliver(table, s, thread); });
    block.on_first_thread([&] {
      double* to = table.workspace.partial_sums + kValues * (partial(table, s) + s.begin / kSegment);
      for (int v = 0; v < kValues; ++v) to[v] = s.lanes[v][0];
      int32_t* arrivals = table.workspace.row_arrivals + s.slot;
      s.is_last_segment = block.arrive(arrivals) == s.segments - 1;
      if (s.is_last_segment) *arrivals = 0;
    });
    const bool is_last_segment = s.is_last_segment;
    block.sync();  // the first thread may write it again from here on
    if (is_last_segment) add_segments(table, s, block);
  }

  // Where the partial sums of the row begin.
  static EXTRAP_HD int64_t partial(const LaunchTable& table, const Shared& s) {
    return static_cast<int64_t>(table.get<uint32_t>(kFirst, s.number)) + s.row * s.segments;
  }

  template <class Block>
  static EXTRAP_HD void add_segments(const LaunchTable& table, Shared& s, const Block& block) {
    const double* partials = table.workspace.partial_sums + kValues * partial(table, s);
    block.on_each_thread([&](int thread) {
      for (int v = 0; v < kValues; ++v) {
        double sum = 0;
        for (int k = thread; k < s.segments; k += kThreads) sum += block.read(partials + kValues * k + v);
        s.lanes[v][thread] = sum;
      }
    });
    reduce(s, 1, kThreads, block);
    block.on_each_thread([&](int thread) { deliver(table, s, thread); });
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
      reduce(s, 1, kThreads, block);
      block.on_first_thread([&] { *table.total += s.lanes[0][0]; });
    }
  }
};

}  // namespace extrap::cuda
