// Random numbers for the elements of a block, in the order of memory: the noise, its amplitude, and the bits that round
// the state.
#pragma once

#include "core/noise.h"
#include "core/rounding.h"
#include "cpu/tile.h"

namespace extrap {
inline namespace EXTRAP_ISA {

EXTRAP_HD void load_noise(const float* from, FloatVector& n) { n = load_bytes<FloatVector>(from); }
EXTRAP_HD void load_noise(const float* from, DoubleVector& n) {
  n = __builtin_convertvector(load_bytes<HalfFloatVector>(from), DoubleVector);
}

// From one counter in each lane to memory order. Each 128-bit part is a 4x4 matrix that is transposed; the counters
// were dealt out to the lanes such that the parts then follow each other.
EXTRAP_HD void store_in_order(const NoiseLanes<FloatVector>& n, float* to) {
  const FloatVector low02 = interleave_low(n.lane[0], n.lane[2]), high02 = interleave_high(n.lane[0], n.lane[2]);
  const FloatVector low13 = interleave_low(n.lane[1], n.lane[3]), high13 = interleave_high(n.lane[1], n.lane[3]);
  const FloatVector ordered[4] = {interleave_low(low02, low13), interleave_high(low02, low13),
                                  interleave_low(high02, high13), interleave_high(high02, high13)};
  memcpy(to, ordered, sizeof ordered);
}

// Lane 4p + j holds the counter whose elements end up in vector j, part p.
struct CounterOrder {
  uint32_t offset[kFloats];
  constexpr CounterOrder() : offset() {
    for (int lane = 0; lane < kFloats; ++lane)
      offset[lane] = static_cast<uint32_t>(lane % 4 * (kFloats / 4) + lane / 4);
  }
};
constexpr CounterOrder kCounterOrder;

struct MemoryOrder {
  uint32_t offset[kFloats];
  constexpr MemoryOrder() : offset() {
    for (int lane = 0; lane < kFloats; ++lane) offset[lane] = static_cast<uint32_t>(lane);
  }
};
constexpr MemoryOrder kMemoryOrder;

// The halves of 64-bit numbers that lie `offsets` after `first`, one in each lane.
struct WideLanes {
  WordVector low, high;

  EXTRAP_HD WideLanes(uint64_t first, const uint32_t* offsets) {
    const WordVector offset = load_bytes<WordVector>(offsets);
    low = offset + static_cast<uint32_t>(first);
    // A comparison gives -1 in the lanes where the sum wrapped.
    high = static_cast<uint32_t>(first >> 32) - reinterpret_cast<WordVector>(low < offset);
  }
};

// Noise of the kBlock elements from `position`, a multiple of 4.
EXTRAP_HD void fill_noise(Noise kind, uint64_t key, uint32_t index, double step, int64_t position, float* to) {
  const WideLanes counter(static_cast<uint64_t>(position) >> 2, kCounterOrder.offset);
  const PhiloxWords<SplitWords> random =
      philox4x32<SplitWords>({{split(counter.low), split(counter.high), split(WordVector{} + index),
                               split(WordVector{} + static_cast<uint32_t>(step))}},
                             key);
  PhiloxWords<WordVector> words;
  for (int k = 0; k < 4; ++k) words.word[k] = join(random.word[k]);
  store_in_order(noise_of<FloatVector>(kind, words), to);
}

// How many of the elements from `begin + filled` on follow each other in the whole tensor, and at most `most`.
EXTRAP_HD int64_t in_extent(const TensorEntry& t, int64_t begin, int64_t filled, int64_t most) {
  const int64_t left = extent_left(t, begin + filled);
  const int64_t count = left < most ? left : most;
  return count < kBlock - filled ? count : kBlock - filled;
}

EXTRAP_HD bool is_whole(const TensorEntry& t) { return t.extent >= t.numel; }

// The same for elements whose positions may begin anywhere and have gaps: each extent is cut out of whole blocks.
__attribute__((noinline)) inline void fill_shard_noise(const StepConfig& config, const TensorEntry& t, int64_t begin,
                                                       float* to) {
  alignas(64) float block[kBlock];
  for (int64_t filled = 0; filled < kBlock;) {
    const int64_t first = position(t, begin + filled), skip = first % 4;
    fill_noise(config.noise, config.key, t.index, t.step, first - skip, block);
    const int64_t count = in_extent(t, begin, filled, kBlock - skip);
    memcpy(to + filled, block + skip, static_cast<size_t>(count) * sizeof(float));
    filled += count;
  }
}

// Noise of the kBlock elements from element `begin` of a tensor, which is a multiple of 4.
EXTRAP_HD void fill_noise(const StepConfig& config, const TensorEntry& t, int64_t begin, float* to) {
  if (is_whole(t) && t.offset % 4 == 0)
    fill_noise(config.noise, config.key, t.index, t.step, t.offset + begin, to);
  else
    fill_shard_noise(config, t, begin, to);
}

// noise_std * s for elements from `begin`, where s is the rms of each element's row.
template <class A>
EXTRAP_HD void fill_amplitude(const TensorEntry& t, A noise_std, int64_t begin, A* to) {
  for (int i = 0; i < kBlock;) {
    const int64_t element = begin + i;
    const int64_t row = (element / t.row_stride) % t.rows;
    const int64_t left = t.row_stride - element % t.row_stride;
    const int64_t count = left < kBlock - i ? left : kBlock - i;
    const A amplitude = static_cast<A>(t.rms[row]) * noise_std;
    for (int64_t end = i + count; i < end; ++i) to[i] = amplitude;
  }
}

// Bits that round the kBlock elements from `position` on, whose positions have the upper half in common.
EXTRAP_HD void fill_rounding(RoundingKey key, uint64_t position, uint32_t* to) {
  const WordVector first = load_bytes<WordVector>(kMemoryOrder.offset) + static_cast<uint32_t>(position);
  EXTRAP_UNROLL
  for (int i = 0; i < kBlock; i += kFloats) {
    const WordVector bits = key.bits(first + static_cast<uint32_t>(i), static_cast<uint32_t>(position >> 32));
    memcpy(to + i, &bits, sizeof bits);
  }
}

// The same for any elements of a tensor.
__attribute__((noinline)) inline void fill_scattered_rounding(RoundingKey key, const TensorEntry& t, int64_t begin,
                                                              uint32_t* to) {
  for (int64_t filled = 0; filled < kBlock;) {
    const uint64_t first = static_cast<uint64_t>(position(t, begin + filled));
    const int64_t count = in_extent(t, begin, filled, kBlock);
    for (uint64_t at = first; at < first + static_cast<uint64_t>(count); ++at, ++filled)
      to[filled] = key.bits(static_cast<uint32_t>(at), static_cast<uint32_t>(at >> 32));
  }
}

// Bits that round the kBlock elements from element `begin` of a tensor on.
EXTRAP_HD void fill_rounding(RoundingKey key, const TensorEntry& t, int64_t begin, uint32_t* to) {
  const uint64_t first = static_cast<uint64_t>(t.offset + begin);
  if (is_whole(t) && static_cast<uint32_t>(first) <= 0xffffffffu - kBlock)
    fill_rounding(key, first, to);
  else
    fill_scattered_rounding(key, t, begin, to);
}

}  // namespace EXTRAP_ISA
}  // namespace extrap
