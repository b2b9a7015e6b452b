// The step of all tensors of a launch: update and next extrapolation in one pass.
#pragma once

#include <new>
#include <type_traits>

#include "core/layout.h"
#include "core/noise.h"
#include "core/step.h"
#include "core/table.h"
#include "cuda/block.h"
#include "cuda/tile.h"

namespace extrap::cuda {

// Types: TensorTypes whose buffers are in the arithmetic type; parameters and gradients may have lower precision.
template <template <class> class RuleOf, class Types, bool kNoise>
struct StepKernel {
  using A = typename Types::A;
  using P = typename Types::Param;
  using G = typename Types::Gradient;
  using Base = typename Types::Base;
  using Buffer = typename Types::Signed;
  static_assert(std::is_same_v<Buffer, A> && std::is_same_v<typename Types::Unsigned, A>,
                "low-precision buffers need groups of eight and random bits to round by");
  using Rule = RuleOf<A>;
  static constexpr int kBuffers = Rule::Buffers::kCount;
  // A thread takes a group at a time: as many elements as the format of fewest bits has in 16 bytes. It computes them
  // in parts, each of which a Philox counter has noise for, and stores what is done, so that few registers are in use.
  static constexpr int kGroup = static_cast<int>(sizeof(Vec16) / (sizeof(P) < sizeof(G) ? sizeof(P) : sizeof(G)));
  static constexpr int kPart = kGroup < 4 ? kGroup : 4;
  // Gradients of fewer bits than the arithmetic are loaded for the whole group, as y is stored.
  static constexpr bool kWholeGradient = sizeof(G) < sizeof(A);
  // Whether a parameter may hold x itself, which is then stored as y.
  static constexpr bool kBaseMayBeY = std::is_same_v<P, Base>;
  // On a multiprocessor: leaves a thread 64 registers; 80 for rules with norms, 128 where a number takes two.
  static constexpr int kResidentBlocks = sizeof(A) == 8 ? 2 : Rule::kNorm == Norm::none ? 4 : 3;

  // A part of a tensor, addressed from its beginning: within it 32 bits are enough.
  struct Chunk {
    int64_t begin;  // in the tensor
    int count;
    P* y;
    Base* base;
    Buffer* buffers[kBuffers > 0 ? kBuffers : 1];
    const G* gradient;
    const G* local;
    // Rows of the noise scale: the first one, how many elements of it are left, then as many as a chunk may have.
    uint32_t first_row, rows;
    int left, row_stride;

    EXTRAP_HD uint32_t row(int at) const {
      const uint32_t passed = at < left ? 0 : 1 + static_cast<uint32_t>(at - left) / static_cast<uint32_t>(row_stride);
      return (first_row + passed) % rows;
    }
  };

  struct Shared {
    TensorEntry tensor;
    int number;  // of the tensor in the launch
    Chunk chunk;
    const double* row_rms;  // null where the amplitude does not depend on the row
    A amplitude;            // of the noise, where it is the same for all elements
    bool aligned, noisy, sharded, skipped, updates, base_is_y, adopts, restore, is_last;
    alignas(StepConstants<A>) unsigned char constants_bytes[sizeof(StepConstants<A>)];
    alignas(Rule) unsigned char rule_bytes[sizeof(Rule)];

    EXTRAP_HD const StepConstants<A>& constants() const {
      return *reinterpret_cast<const StepConstants<A>*>(constants_bytes);
    }
    EXTRAP_HD const Rule& rule() const { return *reinterpret_cast<const Rule*>(rule_bytes); }
  };

  struct Group {
    int at, count;  // in the chunk
    bool vector;
    Tile<P, kGroup> y;
    Tile<G, kWholeGradient ? kGroup : kPart> gradient, local;
  };

  static EXTRAP_HD bool aligned(const TensorEntry& t) {
    uintptr_t bits = reinterpret_cast<uintptr_t>(t.y) | reinterpret_cast<uintptr_t>(t.base) |
                     reinterpret_cast<uintptr_t>(t.gradient) | reinterpret_cast<uintptr_t>(t.local);
    for (int k = 0; k < kBuffers; ++k) bits |= reinterpret_cast<uintptr_t>(t.buffers[k]);
    return bits % sizeof(Vec16) == 0;
  }

  static EXTRAP_HD double trust(const LaunchTable& table, int i, const StepConfig& config) {
    if constexpr (Rule::kNorm != Norm::none) {
      const double* sums = table.workspace.norm_sums + 2 * i;
      if (config.layer_adaptation != 0) return Rule::trust_ratio(config, ::sqrt(sums[0]), ::sqrt(sums[1]));
    }
    return 1;
  }

  static EXTRAP_HD void read_entry(const LaunchTable& table, int i, const StepConfig& config, TensorEntry& t) {
    t.numel = table.numel(i);
    t.y = table.pointer<void>(kY, i);
    t.base = table.pointer<void>(kBase, i);
    for (int k = 0; k < kBuffers; ++k) t.buffers[k] = table.pointer<void>(static_cast<Column>(kBuffer0 + k), i);
    t.gradient = table.pointer<const void>(kGradient, i);
    t.local = table.pointer<const void>(kLocal, i);
    t.step = static_cast<double>(*table.pointer<const float>(kStep, i)) + 1;
    t.trust = trust(table, i, config);
    t.index = table.has(kIndex) ? table.get<uint32_t>(kIndex, i) : 0;
    t.rows = table.rows(i);
    t.row_stride = table.row_stride(i);
    if (!table.has(kOffset)) return;
    t.offset = table.get<int64_t>(kOffset, i);
    t.extent = table.get<int64_t>(kExtent, i);
    t.stride = table.get<int64_t>(kStride, i);
  }

  static EXTRAP_HD void set_noise(const LaunchTable& table, int i, Shared& s) {
    const bool scaled = table.has(kSlot);
    const uint32_t slot = scaled ? table.get<uint32_t>(kSlot, i) : 0;
    s.noisy = slot != kNoSlot;
    if (!s.noisy) return;
    const double* rms = table.workspace.row_rms + slot;
    s.row_rms = scaled && s.tensor.rows > 1 ? rms : nullptr;
    const A std = s.constants().noise_std;
    s.amplitude = scaled && s.tensor.rows == 1 ? static_cast<A>(*rms) * std : std;
  }

  static EXTRAP_HD void set_chunk(const TensorEntry& t, int64_t begin, Chunk& chunk) {
    chunk.begin = begin;
    chunk.count = static_cast<int>(t.numel - begin < kChunk ? t.numel - begin : kChunk);
    chunk.y = static_cast<P*>(t.y) + begin;
    chunk.base = static_cast<Base*>(t.base) + begin;
    for (int k = 0; k < kBuffers; ++k) chunk.buffers[k] = static_cast<Buffer*>(t.buffers[k]) + begin;
    chunk.gradient = static_cast<const G*>(t.gradient) + begin;
    chunk.local = t.local ? static_cast<const G*>(t.local) + begin : nullptr;
    if constexpr (kNoise) set_rows(t, begin, chunk);
  }

  static EXTRAP_HD void set_rows(const TensorEntry& t, int64_t begin, Chunk& chunk) {
    const int64_t passed = begin / t.row_stride;
    const int64_t left = t.row_stride - (begin - passed * t.row_stride);
    chunk.rows = static_cast<uint32_t>(t.rows);
    chunk.first_row = static_cast<uint32_t>(passed % t.rows);
    chunk.left = static_cast<int>(left < kChunk ? left : kChunk);
    chunk.row_stride = static_cast<int>(t.row_stride < kChunk ? t.row_stride : kChunk);
  }

  static EXTRAP_HD_OUT_OF_LINE void prepare(const LaunchTable& table, int unit, bool is_first, Shared& s) {
    if (is_first) {
      s.updates = table.config.phase == Phase::update;
      s.skipped = s.updates && table.skipped();
      // From the point where the second gradient was taken.
      s.restore = table.config.extrapolation == Extrapolation::extragradient;
      s.sharded = table.has(kOffset);
      s.number = -1;
      new (s.constants_bytes) StepConstants<A>(table.resolved_config(), Rule::kOwnDecay);
    }
    const int i = table.find(unit);
    if (i != s.number) {
      const double step = s.tensor.step, trust = s.tensor.trust;
      read_entry(table, i, table.config, s.tensor);
      // Powers of the betas take longer than all else here, and most tensors have the same step count.
      if (s.number < 0 || step != s.tensor.step || trust != s.tensor.trust)
        new (s.rule_bytes) Rule(table.config, s.tensor);
      s.number = i;
      s.aligned = aligned(s.tensor);
      s.base_is_y = kBaseMayBeY && s.tensor.base == s.tensor.y;
      s.adopts = s.constants().adopts && !s.base_is_y;
      if constexpr (kNoise) set_noise(table, i, s);
    }
    set_chunk(s.tensor, static_cast<int64_t>(static_cast<uint32_t>(unit) - table.get<uint32_t>(kFirst, i)) * kChunk,
              s.chunk);
  }

  struct Part {
    int at, count;  // in the chunk
    Tile<Base, kPart> x;
    Tile<Buffer, kPart> buffers[kBuffers > 0 ? kBuffers : 1];
  };

  static EXTRAP_HD void load(const Shared& s, int at, Group& group) {
    const Chunk& c = s.chunk;
    group.at = at;
    group.count = c.count - at;
    group.vector = s.aligned && group.count >= kGroup;
    if (kWholeGradient) load_gradients(s, 0, group);
    if (s.adopts) group.y.load(c.y + at, group.vector, group.count);
  }

  static EXTRAP_HD void load_gradients(const Shared& s, int first, Group& group) {
    const int at = group.at + first;
    group.gradient.load(s.chunk.gradient + at, group.vector, group.count - first);
    if (s.chunk.local) group.local.load(s.chunk.local + at, group.vector, group.count - first);
  }

  // Steps element k of a part, which is element `first + k` of the group; returns y without its noise, and in `l` the
  // local gradient.
  static EXTRAP_HD A compute(const Shared& s, const Group& group, int first, int k, Part& part, A& l) {
    const StepConstants<A>& c = s.constants();
    A x = part.x[k];
    if (s.adopts) x = adopted_base(x, Format<P>::template decode<A>(Format<P>::encode(x)), group.y[first + k]);
    A buffers[kBuffers > 0 ? kBuffers : 1];
    EXTRAP_UNROLL
    for (int b = 0; b < kBuffers; ++b) buffers[b] = part.buffers[b][k];
    const int loaded = kWholeGradient ? first + k : k;
    const A g = prepared_gradient(c, group.gradient[loaded], x);
    l = s.chunk.local ? prepared_gradient(c, group.local[loaded], x) : g;
    const A y =
        s.updates ? corrected_step(s.rule(), c, g, l, x, buffers) : extragradient_step(s.rule(), c, g, l, x, buffers);
    part.x.set(k, x);
    EXTRAP_UNROLL
    for (int b = 0; b < kBuffers; ++b) part.buffers[b].set(k, buffers[b]);
    return y;
  }

  static EXTRAP_HD NoiseLanes<float> draw(const LaunchTable& table, const TensorEntry& t, int64_t position) {
    const auto words =
        philox4x32<uint32_t>(noise_counter(static_cast<uint64_t>(position), t.index, t.step), table.config.key);
    return noise_of<float>(table.config.noise, words);
  }

  // noise_std * s of element `at` of the chunk.
  static EXTRAP_HD A amplitude(const Shared& s, int at, A l) {
    if (s.row_rms) return static_cast<A>(s.row_rms[s.chunk.row(at)]) * s.amplitude;
    return s.constants().gradient_noise ? gradient_amplitude(s.constants(), l) : s.amplitude;
  }

  // Noise of the part from `at` on in the chunk.
  static EXTRAP_HD void draw_part(const LaunchTable& table, const Shared& s, int at, float (&noise)[kPart]) {
    const int64_t element = s.chunk.begin + at;
    if (!s.sharded) {
      const NoiseLanes<float> lanes = draw(table, s.tensor, element);
      EXTRAP_UNROLL
      for (int k = 0; k < kPart; ++k) noise[k] = kPart == 2 && at % 4 != 0 ? lanes.lane[k + 2] : lanes.lane[k];
      return;
    }
    // In the whole tensor a part may begin anywhere, and an extent may end in it.
    EXTRAP_NO_UNROLL
    for (int e = 0; e < kPart; ++e) {
      const int64_t at_whole = position(s.tensor, element + e);
      const NoiseLanes<float> lanes = draw(table, s.tensor, at_whole);
      const int lane = static_cast<int>(at_whole % 4);
      EXTRAP_UNROLL
      for (int k = 0; k < kPart; ++k)
        if (k == e)
          noise[k] = lane == 0 ? lanes.lane[0] : lane == 1 ? lanes.lane[1] : lane == 2 ? lanes.lane[2] : lanes.lane[3];
    }
  }

  static EXTRAP_HD void add_noise(const LaunchTable& table, const Shared& s, int at, const A (&l)[kPart],
                                  A (&y)[kPart]) {
    float noise[kPart];
    draw_part(table, s, at, noise);
    EXTRAP_UNROLL
    for (int k = 0; k < kPart; ++k) y[k] = y[k] + static_cast<A>(noise[k]) * amplitude(s, at + k, l[k]);
  }

  static EXTRAP_HD void return_to_base(const Chunk& chunk, int thread) {
    for (int i = thread; i < chunk.count; i += kThreads) store_one(chunk.y + i, load_one(chunk.base + i));
  }

  static EXTRAP_HD void work(const LaunchTable& table, const Shared& s, int thread) {
    if (s.skipped) {
      if (s.restore) return_to_base(s.chunk, thread);
      return;
    }
    for (int at = thread * kGroup; at < s.chunk.count; at += kThreads * kGroup) {
      Group group;
      load(s, at, group);
      EXTRAP_UNROLL
      for (int first = 0; first < kGroup; first += kPart) step_part(table, s, first, group);
      group.y.template store<Reuse::soon>(s.chunk.y + at, group.vector, group.count);
    }
  }

  static EXTRAP_HD void step_part(const LaunchTable& table, const Shared& s, int first, Group& group) {
    Part part;
    load_part(s, first, group, part);
    if (!kWholeGradient) load_gradients(s, first, group);
    A y[kPart], l[kPart];
    EXTRAP_UNROLL
    for (int k = 0; k < kPart; ++k) {
      y[k] = compute(s, group, first, k, part, l[k]);
      EXTRAP_REREAD_MEMORY();
    }
    store_part(s, group, part);
    if constexpr (kNoise)
      if (s.noisy) add_noise(table, s, part.at, l, y);
    EXTRAP_UNROLL
    for (int k = 0; k < kPart; k += 2) group.y.set_pair(first + k, y[k], y[k + 1]);
  }

  static EXTRAP_HD void load_part(const Shared& s, int first, const Group& group, Part& part) {
    part.at = group.at + first;
    part.count = group.count - first;
    part.x.load(s.chunk.base + part.at, group.vector, part.count);
    EXTRAP_UNROLL
    for (int b = 0; b < kBuffers; ++b) part.buffers[b].load(s.chunk.buffers[b] + part.at, group.vector, part.count);
  }

  static EXTRAP_HD void store_part(const Shared& s, const Group& group, const Part& part) {
    if (!s.base_is_y) part.x.template store<Reuse::none>(s.chunk.base + part.at, group.vector, part.count);
    if (!s.updates) return;
    EXTRAP_UNROLL
    for (int b = 0; b < kBuffers; ++b)
      part.buffers[b].template store<Reuse::none>(s.chunk.buffers[b] + part.at, group.vector, part.count);
  }

  template <class Block>
  static EXTRAP_HD void complete(const LaunchTable&, Shared&, const Block&) {}

  // Every block has read the step counts by now.
  template <class Block>
  static EXTRAP_HD void finish(const LaunchTable& table, Shared&, const Block& block) {
    if (table.config.phase != Phase::update || table.skipped()) return;
    block.on_each_thread([&](int thread) {
      for (int i = thread; i < table.tensors; i += kThreads) *table.pointer<float>(kStep, i) += 1;
    });
  }
};

}  // namespace extrap::cuda
