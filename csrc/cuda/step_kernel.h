// The step of all tensors of a launch: update and next extrapolation in one pass.
#pragma once

#include <new>
#include <type_traits>

#include "core/layout.h"
#include "core/noise.h"
#include "core/step.h"
#include "core/table.h"
#include "cuda/block.h"
#include "cuda/block_tile.h"
#include "cuda/lanes.h"
#include "cuda/random_part.h"
#include "cuda/tile.h"

namespace extrap::cuda {

// Types: TensorTypes whose buffers all have one format.
template <template <class> class RuleOf, class Types, bool kNoise>
struct StepKernel {
  using A = typename Types::A;
  using P = typename Types::Param;
  using G = typename Types::Gradient;
  using Base = typename Types::Base;
  using Buffer = typename Types::Signed;
  static_assert(std::is_same_v<Buffer, typename Types::Unsigned>,
                "buffers of several formats are yet to be told apart");
  using Rule = RuleOf<A>;
  using Signs = typename Rule::Buffers;
  static constexpr int kBuffers = Signs::kCount;
  static constexpr bool kHasBlocks = kBuffers > 0 && kInBlocks<Buffer>;
  static constexpr bool kSplitsBase = kIsSplit<Base>;
  // Whether random bits round unsigned buffers one by one, and whether they round anything.
  static constexpr bool kRoundsUnsigned = !kHasBlocks && Signs::kAnyUnsigned && sizeof(Buffer) < sizeof(A);
  static constexpr bool kRounds = kSplitsBase || kHasBlocks || kRoundsUnsigned;
  // A thread takes as many elements at a time as 128 bits have of the arithmetic type: in formats of fewer bits, the
  // accesses of a warp still leave no gaps.
  static constexpr int kPart = kWidestAccess / static_cast<int>(sizeof(A));
  using V = Lanes<A, kPart>;
  using Words = Lanes<uint32_t, kPart>;
  // Whether a parameter may hold x itself, which is then stored as y.
  static constexpr bool kBaseMayBeY = std::is_same_v<P, Base>;
  // Whether x may be recovered from y.
  static constexpr bool kRecovers = !kNoise && kRecoversBase<Rule, Types>;
  // On a multiprocessor: leaves a thread 64 registers; 80 with norms, noise or blocks, 128 where a number takes two.
  static constexpr bool kIsSmall = Rule::kNorm == Norm::none && !kNoise && !kHasBlocks;
  static constexpr int kResidentBlocks = sizeof(A) == 8 ? 2 : kIsSmall ? 4 : 3;
  // Parts that are on their way to a thread at a time where it steps blocks: all of a chunk if registers suffice.
  static constexpr bool kFewRegisters = !kNoise && (kBuffers < 2 || sizeof(P) + sizeof(G) <= sizeof(A));
  static constexpr int kTogether = kFewRegisters ? kChunk / (kThreads * kPart) : 1;

  // A part of a tensor, addressed from its beginning: within it 32 bits are enough.
  struct Chunk {
    int64_t begin;  // in the tensor
    int count;
    P* y;
    PointerTo<Base> base;
    Buffer* buffers[kBuffers > 0 ? kBuffers : 1];
    uint8_t* exponents[kHasBlocks ? kBuffers : 1];
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

  // A chunk and its tensor.
  struct Prepared {
    TensorEntry tensor;
    int number;  // of the tensor in the launch; -1: none yet
    Chunk chunk;
    RandomKey noise_key, rounding_key;
    const double* row_rms;  // null where the amplitude does not depend on the row
    A amplitude;            // of the noise, where it is the same for all elements
    A inner_lr;             // x is recovered by it; 0: it need not be
    bool aligned, noisy, base_is_y, adopts;
    alignas(Rule) unsigned char rule_bytes[sizeof(Rule)];

    EXTRAP_HD const Rule& rule() const { return *reinterpret_cast<const Rule*>(rule_bytes); }
  };

  struct Shared {
    Prepared prepared[2];
    bool sharded, skipped, updates, restore, is_last;
    alignas(StepConstants<A>) unsigned char constants_bytes[sizeof(StepConstants<A>)];

    EXTRAP_HD const StepConstants<A>& constants() const {
      return *reinterpret_cast<const StepConstants<A>*>(constants_bytes);
    }
  };

  static EXTRAP_HD bool aligned(const TensorEntry& t) {
    bool all = Tile<P, kPart>::aligned(t.y) && Tile<Base, kPart>::aligned(pointer_to<Base>(t.base, t.base_low)) &&
               Tile<G, kPart>::aligned(t.gradient) && Tile<G, kPart>::aligned(t.local);
    for (int b = 0; b < kBuffers; ++b) all = all && Tile<Buffer, kPart>::aligned(t.buffers[b]);
    return all;
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
    if constexpr (kSplitsBase) t.base_low = table.pointer<void>(kBaseLow, i);
    for (int k = 0; k < kBuffers; ++k) t.buffers[k] = table.pointer<void>(static_cast<Column>(kBuffer0 + k), i);
    if constexpr (kHasBlocks)
      for (int k = 0; k < kBuffers; ++k) t.exponents[k] = table.pointer<void>(static_cast<Column>(kExponents0 + k), i);
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

  static EXTRAP_HD_OUT_OF_LINE void set_noise(const LaunchTable& table, const Shared& s, Prepared& now) {
    const bool scaled = table.has(kSlot);
    const uint32_t slot = scaled ? table.get<uint32_t>(kSlot, now.number) : 0;
    now.noisy = slot != kNoSlot;
    now.row_rms = nullptr;
    if (!now.noisy) return;
    now.noise_key = RandomKey::of(table.config.key, now.tensor.index, now.tensor.step);
    const double* rms = table.workspace.row_rms + slot;
    if (scaled && now.tensor.rows > 1) now.row_rms = rms;
    const A std = s.constants().noise_std;
    now.amplitude = scaled && now.tensor.rows == 1 ? static_cast<A>(*rms) * std : std;
  }

  static EXTRAP_HD void set_chunk(const TensorEntry& t, int64_t begin, Chunk& chunk) {
    chunk.begin = begin;
    chunk.count = static_cast<int>(t.numel - begin < kChunk ? t.numel - begin : kChunk);
    chunk.y = static_cast<P*>(t.y) + begin;
    chunk.base = pointer_to<Base>(t.base, t.base_low) + begin;
    for (int k = 0; k < kBuffers; ++k) chunk.buffers[k] = static_cast<Buffer*>(t.buffers[k]) + begin;
    if constexpr (kHasBlocks)
      for (int k = 0; k < kBuffers; ++k)
        chunk.exponents[k] = static_cast<uint8_t*>(t.exponents[k]) + begin / kBlockNumbers;
    chunk.gradient = static_cast<const G*>(t.gradient) + begin;
    chunk.local = t.local ? static_cast<const G*>(t.local) + begin : nullptr;
  }

  static EXTRAP_HD void set_rows(const TensorEntry& t, int64_t begin, Chunk& chunk) {
    const int64_t passed = begin / t.row_stride;
    const int64_t left = t.row_stride - (begin - passed * t.row_stride);
    chunk.rows = static_cast<uint32_t>(t.rows);
    chunk.first_row = static_cast<uint32_t>(passed % t.rows);
    chunk.left = static_cast<int>(left < kChunk ? left : kChunk);
    chunk.row_stride = static_cast<int>(t.row_stride < kChunk ? t.row_stride : kChunk);
  }

  static EXTRAP_HD void begin(const LaunchTable& table, Shared& s) {
    s.updates = table.config.phase == Phase::update;
    s.skipped = s.updates && table.skipped();
    // From the point where the second gradient was taken.
    s.restore = table.config.extrapolation == Extrapolation::extragradient;
    s.sharded = table.has(kOffset);
    s.prepared[0].number = s.prepared[1].number = -1;
    new (s.constants_bytes) StepConstants<A>(table.resolved_config(), Rule::kOwnDecay);
  }

  static EXTRAP_HD void set_tensor(const LaunchTable& table, int i, const Shared& s, Prepared& now) {
    const bool is_first = now.number < 0;
    const double step = now.tensor.step, trust = now.tensor.trust;
    read_entry(table, i, table.config, now.tensor);
    // Powers of the betas take longer than all else here, and most tensors have the same step count.
    if (is_first || step != now.tensor.step || trust != now.tensor.trust)
      new (now.rule_bytes) Rule(table.config, now.tensor);
    now.number = i;
    now.aligned = aligned(now.tensor);
    now.base_is_y = kBaseMayBeY && now.tensor.base == now.tensor.y;
    now.adopts = s.constants().adopts && !now.base_is_y;
    now.inner_lr = 0;
    if constexpr (kRecovers)
      if (table.has(kInnerLr)) now.inner_lr = *table.pointer<const A>(kInnerLr, i);
    if constexpr (kNoise) set_noise(table, s, now);
    if constexpr (kRounds)
      now.rounding_key = RandomKey::of(table.config.seed, now.tensor.index | kRoundingStream, now.tensor.step);
  }

  static EXTRAP_HD_OUT_OF_LINE void prepare(const LaunchTable& table, int unit, const Shared& s, Prepared& now) {
    const int i = table.find(unit);
    if (i != now.number) set_tensor(table, i, s, now);
    set_chunk(now.tensor, static_cast<int64_t>(static_cast<uint32_t>(unit) - table.get<uint32_t>(kFirst, i)) * kChunk,
              now.chunk);
    if constexpr (kNoise)
      if (now.row_rms) set_rows(now.tensor, now.chunk.begin, now.chunk);
  }

  // Of a part.
  struct Numbers {
    Tile<P, kPart> y;
    Tile<Base, kPart> x;
    Tile<Buffer, kPart> buffers[kBuffers > 0 ? kBuffers : 1];
    Exponents<kPart> exponents[kHasBlocks ? kBuffers : 1];
    Tile<G, kPart> gradient, local;
  };

  // Of a part, between the moment when its numbers are known and that when their blocks are.
  struct Pending {
    PendingCodes<kPart> codes[kHasBlocks ? kBuffers : 1];
    Words random;
  };

  // move(tile, buffer) for each buffer that a step reads.
  template <class Move>
  static EXTRAP_HD void each_read(const Prepared& now, Numbers& n, const Move& move) {
    const Chunk& c = now.chunk;
    move(n.x, c.base);
    EXTRAP_UNROLL
    for (int b = 0; b < kBuffers; ++b) move(n.buffers[b], c.buffers[b]);
    move(n.gradient, c.gradient);
    // Of what is not read, no registers are kept from one chunk to the next.
    if constexpr (kHasBlocks) n.local.packet = {}, n.y.packet = {};
    if (c.local) move(n.local, c.local);
    if (now.adopts) move(n.y, c.y);
  }

  // The same for each that it writes, but y. updates: whether buffers are among them.
  template <class Move>
  static EXTRAP_HD void each_written(bool updates, const Prepared& now, const Numbers& n, const Move& move) {
    if (!now.base_is_y) move(n.x, now.chunk.base);
    if (!updates) return;
    EXTRAP_UNROLL
    for (int b = 0; b < kBuffers; ++b) move(n.buffers[b], now.chunk.buffers[b]);
  }

  // How a part is accessed is asked once for all its buffers.
  template <class Elements>
  static EXTRAP_HD void load(const Prepared& now, const Elements& part, Numbers& n) {
    if (part.in_one_access())
      each_read(now, n, [&](auto& tile, auto from) { tile.load_packet(from + part.at); });
    else
      each_read(now, n, [&](auto& tile, auto from) { tile.load_numbers(from, part); });
    if constexpr (kHasBlocks) {
      EXTRAP_UNROLL
      for (int b = 0; b < kBuffers; ++b)
        n.exponents[b].load(now.chunk.exponents[b], part, [](int element) { return element; });
    }
  }

  // consecutive: whether the part's elements are, so that they are of one block.
  static EXTRAP_HD V buffer(const Numbers& n, int b, bool consecutive) {
    if constexpr (kHasBlocks)
      return decoded(Signs::is_signed(b), n.buffers[b], n.exponents[b], consecutive);
    else
      return n.buffers[b].template all<V>();
  }

  // Before the noise is drawn, so that few registers are in use.
  template <class Elements>
  static EXTRAP_HD void store_state(bool updates, const Prepared& now, const Elements& part, const Numbers& n) {
    if (part.in_one_access())
      each_written(updates, now, n, [&](const auto& tile, auto to) { tile.store_packet(to + part.at); });
    else
      each_written(updates, now, n, [&](const auto& tile, auto to) { tile.store_numbers(to, part); });
  }

  // 32 bits for each element of a part, which its state is rounded by.
  template <class Elements>
  static EXTRAP_HD Words rounding_bits(const Shared& s, const Prepared& now, const Elements& part) {
    return bits_of<Words>(now.rounding_key, now.tensor, s.sharded, now.chunk.begin, part);
  }

  static EXTRAP_HD V base(const Prepared& now, const Numbers& n) {
    const V x = n.x.template all<V>();
    if (!now.adopts) return x;
    Tile<P, kPart> rounded;
    rounded.set_all(x);
    return V::each([&](int k) { return adopted_base(x[k], rounded[k], n.y[k]); });
  }

  // x as it is stored. random: 32 bits for each element.
  static EXTRAP_HD V kept_base(V x, const Words& random) {
    if constexpr (kSplitsBase)
      return V::each([&](int k) { return Format<Base>::rounded(x[k], random[k]); });
    else
      return x;
  }

  // random: of the base, if that is rounded by them.
  static EXTRAP_HD void set_buffers(const Shared& s, const Prepared& now, const Part<kPart>& part, const V* buffers,
                                    Words random, Numbers& n) {
    EXTRAP_UNROLL
    for (int b = 0; b < kBuffers; ++b)
      if (!kRoundsUnsigned || Signs::is_signed(b)) n.buffers[b].set_all(buffers[b]);
    if constexpr (kRoundsUnsigned) {
      if constexpr (!kSplitsBase) random = rounding_bits(s, now, part);
      EXTRAP_UNROLL
      for (int b = 0; b < kBuffers; ++b)
        if (!Signs::is_signed(b)) n.buffers[b].set_all_by(random, buffers[b]);
    }
  }

  // Steps a part but for its buffers; returns y without its noise, and in `l` the local gradient. random: of an update
  // that rounds the base.
  static EXTRAP_HD V compute(const Shared& s, const Prepared& now, bool updates, bool consecutive, const Words& random,
                             Numbers& n, V* buffers, V& l) {
    const StepConstants<A>& c = s.constants();
    V x = base(now, n);
    EXTRAP_UNROLL
    for (int b = 0; b < kBuffers; ++b) buffers[b] = buffer(n, b, consecutive);
    if constexpr (kRecovers)
      if (now.inner_lr != 0) x = recovered_base(x, buffers[0], now.inner_lr);
    const V g = prepared_gradient(c, n.gradient.template all<V>(), x);
    l = now.chunk.local ? prepared_gradient(c, n.local.template all<V>(), x) : g;
    V y;
    if (updates) {
      y = corrected_step(now.rule(), c, g, l, x, buffers, [&](V v) { return kept_base(v, random); });
    } else {
      y = extragradient_step(now.rule(), c, g, l, x, buffers);
      x = kept_base(x, Words{});  // as it is, but a NaN may have other bits
    }
    n.x.set_all(x);
    return y;
  }

  // noise_std * s of element `at` of the chunk.
  static EXTRAP_HD A amplitude(const Shared& s, const Prepared& now, int at, A l) {
    if (now.row_rms) return static_cast<A>(now.row_rms[now.chunk.row(at)]) * now.amplitude;
    return s.constants().gradient_noise ? gradient_amplitude(s.constants(), l) : now.amplitude;
  }

  template <class Elements>
  static EXTRAP_HD V with_noise(const LaunchTable& table, const Shared& s, const Prepared& now, const Elements& part,
                                V l, V y) {
    return added_noise(table.config.noise, now.noise_key, now.tensor, s.sharded, now.chunk.begin, part, y,
                       [&](float noise, int k) { return static_cast<A>(noise) * amplitude(s, now, part[k], l[k]); });
  }

  static EXTRAP_HD void return_to_base(const Chunk& chunk, int thread) {
    for (int i = thread; i < chunk.count; i += kThreads) store_one(chunk.y + i, load_one(chunk.base + i));
  }

  template <class Warp>
  static EXTRAP_HD void work(const LaunchTable& table, const Shared& s, const Prepared& now, const Warp& warp) {
    if (s.skipped) {
      if (s.restore) warp.each([&](int thread) { return_to_base(now.chunk, thread); });
    } else if constexpr (kHasBlocks) {
      if (s.updates && now.aligned && now.chunk.count == kChunk)
        step_blocks<WholePart<kPart>, kTogether>(table, s, now, warp);
      else
        step_rest(table, s, now, warp);
    } else {
      warp.each([&](int thread) { step_parts(table, s, now, thread); });
    }
  }

  // Out of line, so that it takes no registers from what most elements are stepped by.
  template <class Warp>
  static EXTRAP_HD_OUT_OF_LINE void step_rest(const LaunchTable& table, const Shared& s, const Prepared& now,
                                              Warp warp) {
    if (s.updates)
      step_blocks<Part<kPart>, 1>(table, s, now, warp);
    else
      warp.each([&](int thread) { step_parts(table, s, now, thread); });
  }

  static EXTRAP_HD void step_parts(const LaunchTable& table, const Shared& s, const Prepared& now, int thread) {
    for (Part<kPart> part(now.aligned, thread, now.chunk.count); part.left > 0; part.advance(kThreads))
      step_part(table, s, now, part);
  }

  // Of blocks, only those that are read.
  static EXTRAP_HD void step_part(const LaunchTable& table, const Shared& s, const Prepared& now,
                                  const Part<kPart>& part) {
    const bool updates = !kHasBlocks && s.updates;
    Numbers n;
    load(now, part, n);
    V buffers[kBuffers > 0 ? kBuffers : 1], l;
    Words random{};
    if constexpr (kSplitsBase)
      if (updates) random = rounding_bits(s, now, part);
    const V y = compute(s, now, updates, now.aligned, random, n, buffers, l);
    if constexpr (!kHasBlocks) set_buffers(s, now, part, buffers, random, n);
    store(table, s, now, updates, part, n, l, y);
  }

  // Of a thread: those of a block follow each other from `first` on.
  template <class Elements>
  static EXTRAP_HD Elements part_of(const Prepared& now, int first, int thread) {
    if constexpr (std::is_same_v<Elements, WholePart<kPart>>) {
      return {first + thread * kPart};
    } else {
      Part<kPart> part(false, thread, now.chunk.count);
      part.advance(first / kPart);
      return part;
    }
  }

  // All lanes of a warp together; of the last parts, some have no elements. kParts: on their way at a time.
  template <class Elements, int kParts, class Warp>
  static EXTRAP_HD void step_blocks(const LaunchTable& table, const Shared& s, const Prepared& now, const Warp& warp) {
    if constexpr (kHasBlocks) {
      EXTRAP_NO_UNROLL
      for (int first = 0; first < now.chunk.count; first += kParts * kThreads * kPart)
        step_blocks_from<Elements, kParts>(table, s, now, first, warp);
    }
  }

  template <class Elements, int kParts, class Warp>
  static EXTRAP_HD void step_blocks_from(const LaunchTable& table, const Shared& s, const Prepared& now, int first,
                                         const Warp& warp) {
    constexpr bool kWhole = std::is_same_v<Elements, WholePart<kPart>>;
    struct Parts {
      Numbers n[kParts];
      Pending pending;
    };
    const auto part_of = [&](int thread, int i) {
      return StepKernel::part_of<Elements>(now, first + i * kThreads * kPart, thread);
    };
    warp.template in_steps<Parts>(
        kParts, lanes_of_block(kWhole, kPart),
        [&](int thread, int i, Parts& parts) { load(now, part_of(thread, i), parts.n[i]); },
        [&](int thread, int i, Parts& parts) {
          const auto part = part_of(thread, i);
          Pending& p = parts.pending;
          V buffers[kBuffers], l;
          if constexpr (kSplitsBase) p.random = rounding_bits(s, now, part);
          const V y = compute(s, now, true, kWhole, p.random, parts.n[i], buffers, l);
          if constexpr (!kSplitsBase) p.random = rounding_bits(s, now, part);
          EXTRAP_UNROLL
          for (int b = 0; b < kBuffers; ++b) p.codes[b].set(Signs::is_signed(b), buffers[b], p.random, part);
          store(table, s, now, false, part, parts.n[i], l, y);
        },
        [&](Parts& parts, const auto& visit) {
          EXTRAP_UNROLL
          for (int b = 0; b < kBuffers; ++b) {
            EXTRAP_UNROLL
            for (int k = 0; k < (kWhole ? 1 : kPart); ++k) visit(parts.pending.codes[b].largest[k]);
          }
        },
        [&](int thread, int i, Parts& parts) {
          const auto part = part_of(thread, i);
          const Pending& p = parts.pending;
          Numbers& n = parts.n[i];
          EXTRAP_UNROLL
          for (int b = 0; b < kBuffers; ++b) {
            p.codes[b].encode(Signs::is_signed(b), p.random, part, n.buffers[b], n.exponents[b]);
            n.buffers[b].store(now.chunk.buffers[b], part);
            n.exponents[b].store(now.chunk.exponents[b], part);
          }
        });
  }

  // updates: whether buffers are stored, too. y comes without its noise.
  template <class Elements>
  static EXTRAP_HD void store(const LaunchTable& table, const Shared& s, const Prepared& now, bool updates,
                              const Elements& part, Numbers& n, V l, V y) {
    store_state(updates, now, part, n);
    if constexpr (kNoise)
      if (now.noisy) y = with_noise(table, s, now, part, l, y);
    n.y.set_all(y);
    n.y.store(now.chunk.y, part);
  }

  template <class Block>
  static EXTRAP_HD void complete(const LaunchTable&, const Shared&, const Prepared&, const Block&) {}

  // Every block has read the step counts, and what x was recovered by, by now.
  template <class Block>
  static EXTRAP_HD void finish(const LaunchTable& table, Shared& s, const Block& block) {
    if (table.config.phase != Phase::update || table.skipped()) return;
    block.on_each_thread([&](int thread) {
      for (int i = thread; i < table.tensors; i += kThreads) {
        *table.pointer<float>(kStep, i) += 1;
        if constexpr (kRecovers)
          if (table.has(kInnerLr)) *table.pointer<A>(kInnerLr, i) = s.constants().extrap_lr;
      }
    });
  }
};

}  // namespace extrap::cuda
