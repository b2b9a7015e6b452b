// The step of some chunks of a tensor.
#pragma once

#include "core/step.h"
#include "cpu/noise.h"
#include "cpu/tile.h"

namespace extrap {
inline namespace EXTRAP_ISA {

// What all elements of a tensor have in common.
template <class Rule, class Types>
struct TensorStep {
  const StepConfig& config;
  const StepConstants<typename Types::A>& constants;
  const Rule& rule;
  const TensorEntry& tensor;
  RandomKey noise, rounding;
};

// What is beside a run of elements: their random numbers, and those of buffers in blocks until these are stored.
template <class Rule, class Types, bool kNoise>
struct Run {
  using Tile = Block<Rule, Types>;
  static constexpr bool kHasBlocks = Tile::kHasBlocks;
  alignas(64) float noise[kRun];
  alignas(64) uint32_t rounding[kRun + kFloats];
  alignas(64) float kept[kHasBlocks ? Tile::kBuffers : 1][kHasBlocks ? kRun : 1];

  EXTRAP_HD void fill(const TensorStep<Rule, Types>& s, int64_t begin, int64_t count) {
    if constexpr (kNoise) fill_noise(s.config.noise, s.noise, s.tensor, begin, count, noise);
    if constexpr (Tile::kRounds)
      if (!s.constants.extrapolates) fill_rounding(s.rounding, s.tensor, begin, count, rounding);
  }

  // Where store_buffer() leaves what it cannot store yet.
  EXTRAP_HD float* kept_from(int buffer, int64_t at) {
    if constexpr (kHasBlocks) return kept[buffer] + at;
    return nullptr;
  }

  EXTRAP_HD void store_codes(const TensorStep<Rule, Types>& s, const Tile& first, int64_t count) const {
    if constexpr (kHasBlocks)
      if (!s.constants.extrapolates)
        for (int k = 0; k < Tile::kBuffers; ++k) first.store_codes(k, kept[k], rounding, count);
  }
};

// The block lies `at` in the run.
template <class Rule, class Types, bool kNoise>
EXTRAP_HD void step_block(const TensorStep<Rule, Types>& s, int64_t begin, const Block<Rule, Types>& b, bool streaming,
                          Run<Rule, Types, kNoise>& run, int64_t at) {
  using A = typename Types::A;
  using V = typename VectorOf<A>::type;
  constexpr int kLanes = kVectorBytes / static_cast<int>(sizeof(A));
  const StepConstants<A>& c = s.constants;
  const Rule& rule = s.rule;
  const A inner_lr = static_cast<A>(s.tensor.inner_lr);
  const bool recovers = inner_lr != 0;
  alignas(64) A amplitude[kNoise ? kBlock : 1];
  if constexpr (kNoise)
    if (s.tensor.rms) fill_amplitude(s.tensor, c.noise_std, begin, amplitude);
  EXTRAP_UNROLL
  for (int i = 0; i < kBlock; i += kLanes) {
    V x = b.template load_base<V>(i, c.adopts);
    V buffers[b.kBuffers > 0 ? b.kBuffers : 1];
    for (int k = 0; k < b.kBuffers; ++k) buffers[k] = b.template load_buffer<V>(k, i);
    if constexpr (!kNoise && kRecoversBase<Rule, Types>)
      if (recovers) x = recovered_base(x, buffers[0], inner_lr);
    const V g = prepared_gradient(c, load<V>(b.gradient + i), x);
    const V l = b.local ? prepared_gradient(c, load<V>(b.local + i), x) : g;
    V y;
    if (c.extrapolates) {
      y = extragradient_step(rule, c, g, l, x, buffers);
      x = b.kept_base(x, nullptr);
    } else {
      y = corrected_step(rule, c, g, l, x, buffers, [&](V v) { return b.kept_base(v, run.rounding + at + i); });
      for (int k = 0; k < b.kBuffers; ++k) b.store_buffer(k, i, buffers[k], run.rounding + at, run.kept_from(k, at));
    }
    b.store_base(i, x);
    if constexpr (kNoise) {
      V n, scale = V{} + c.noise_std;
      load_noise(run.noise + at + i, n);
      if (c.gradient_noise) scale = gradient_amplitude(c, l);
      if (s.tensor.rms) scale = load<V>(amplitude + i);
      y = y + n * scale;
    }
    store(b.y + i, y, streaming);
  }
}

// Fewer elements than a block.
template <class Rule, class Types, bool kNoise>
__attribute__((noinline)) void step_part(const TensorStep<Rule, Types>& s, int64_t begin, int64_t end) {
  PaddedBlock<Rule, Types> part({s.tensor, begin}, static_cast<size_t>(end - begin), s.constants.adopts);
  Run<Rule, Types, kNoise> run;
  run.fill(s, begin, kBlock);
  step_block(s, begin, part.block, false, run, 0);
  run.store_codes(s, part.block, kBlock);
  part.store();
}

// `shift`: how far the chunks of this tensor are moved, but for the beginning of the first and the end of the last one.
template <class Rule, class Types, bool kNoise>
EXTRAP_HD void step_chunk(const TensorStep<Rule, Types>& s, const Chunk& chunk, int64_t shift, bool streaming) {
  constexpr int64_t kPrefetchElements = kPrefetchAhead / sizeof(typename Types::A);
  const int64_t numel = s.tensor.numel, shifted_end = chunk.begin + chunk.count + shift;
  const int64_t end = shifted_end < numel ? shifted_end : numel;
  int64_t i = chunk.begin + shift;
  if (chunk.begin == 0 && shift > 0) step_part<Rule, Types, kNoise>(s, 0, shift < end ? shift : end);
  Run<Rule, Types, kNoise> run;
  for (int64_t left = (end - i) / kBlock * kBlock; left > 0;) {
    const int64_t count = left < kRun ? left : kRun;
    run.fill(s, i, count);
    const Block<Rule, Types> first(s.tensor, i);
    for (int64_t at = 0; at < count; at += kBlock, i += kBlock) {
      const Block<Rule, Types> block(s.tensor, i);
      // Not past the end: small tensors would fetch what nobody needs.
      if (i + kPrefetchElements < numel) prefetch(block, s.constants.adopts);
      step_block(s, i, block, streaming, run, at);
    }
    run.store_codes(s, first, count);
    left -= count;
  }
  if (streaming) finish_streaming();
  if (i < end) step_part<Rule, Types, kNoise>(s, i, end);
}

template <class Rule, class Types>
void step(const StepConfig& config, const TensorEntry* tensors, const Chunk* chunks, int64_t count, bool streaming) {
  const StepConstants<typename Types::A> c(config, Rule::kOwnDecay);
  const TensorEntry* last = tensors + chunks[0].tensor;
  Rule rule(config, *last);
  for (const Chunk* chunk = chunks; chunk < chunks + count; ++chunk) {
    const TensorEntry& t = tensors[chunk->tensor];
    if (!t.gradient) continue;
    // All that a rule takes from a tensor: its powers of beta cost as much as stepping a small one.
    if (t.step != last->step || t.trust != last->trust) rule = Rule(config, t);
    last = &t;
    TensorStep<Rule, Types> s{config, c, rule, t, {}, {}};
    if constexpr (Block<Rule, Types>::kRounds)
      s.rounding = RandomKey::of(config.seed, t.index | kRoundingStream, t.step);
    const int64_t unaligned = streaming ? until_aligned<Types>(t) : -1;
    // Chunks are not moved where that would cut blocks.
    constexpr bool kMoves = !Block<Rule, Types>::kHasBlocks;
    // Noise comes in blocks that begin where the tensor does: there, an unaligned y takes its way through the caches.
    if (config.noise != Noise::none && (config.noise_scale != NoiseScale::filter || t.rms)) {
      s.noise = RandomKey::of(config.key, t.index, t.step);
      step_chunk<Rule, Types, true>(s, *chunk, 0, unaligned == 0);
    } else {
      const int64_t shift = kMoves && unaligned > 0 ? unaligned : 0;
      step_chunk<Rule, Types, false>(s, *chunk, shift, unaligned == shift);
    }
  }
}

}  // namespace EXTRAP_ISA
}  // namespace extrap
