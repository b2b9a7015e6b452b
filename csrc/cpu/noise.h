// Random numbers for the elements of a block, in the order of memory: the noise, its amplitude, and the bits that round
// the state.
#pragma once

#include "core/noise.h"
#include "cpu/tile.h"

namespace extrap {
inline namespace EXTRAP_ISA {

EXTRAP_HD void load_noise(const float* from, FloatVector& n) { n = load_bytes<FloatVector>(from); }
EXTRAP_HD void load_noise(const float* from, DoubleVector& n) {
  n = __builtin_convertvector(load_bytes<HalfFloatVector>(from), DoubleVector);
}

// Lane 4p + j holds the pair that ends up, interleaved, in part p of 128 bits: of the first vector if j < 2, else of
// the second.
struct PairOrder {
  uint32_t offset[kFloats];
  constexpr PairOrder() : offset() {
    for (int lane = 0; lane < kFloats; ++lane)
      offset[lane] = static_cast<uint32_t>(lane % 4 / 2 * (kFloats / 2) + lane / 4 * 2 + lane % 2);
  }
};
constexpr PairOrder kPairOrder;

struct MemoryOrder {
  uint32_t offset[kFloats];
  constexpr MemoryOrder() : offset() {
    for (int lane = 0; lane < kFloats; ++lane) offset[lane] = static_cast<uint32_t>(lane);
  }
};
constexpr MemoryOrder kMemoryOrder;

// Noise of the kBlock elements from `position` on, which is even.
EXTRAP_HD void fill_noise(Noise kind, const RandomKey& key, uint64_t position, float* to) {
  const WordVector order = load_bytes<WordVector>(kPairOrder.offset);
  EXTRAP_UNROLL
  for (uint32_t i = 0; i < kBlock; i += 2 * kFloats) {
    const uint64_t first = (position + i) >> 1;
    const uint32_t high = static_cast<uint32_t>(first >> 32);
    const WordVector low = order + static_cast<uint32_t>(first);
    // A comparison gives -1 in the lanes where the sum wrapped, which is rare and costs a product of vectors.
    const WordVector word = static_cast<uint32_t>(first) <= 0xffffffffu - kFloats
                                ? key.bits(low, high)
                                : key.bits(low, high - reinterpret_cast<WordVector>(low < order));
    const NoisePair<FloatVector> n = noise_of<FloatVector>(kind, word);
    const FloatVector ordered[2] = {interleave_low(n.even, n.odd), interleave_high(n.even, n.odd)};
    memcpy(to + i, ordered, sizeof ordered);
  }
}

// How many of the elements from `begin + filled` on follow each other in the whole tensor, and at most `most`.
EXTRAP_HD int64_t in_extent(const TensorEntry& t, int64_t begin, int64_t filled, int64_t most) {
  const int64_t left = extent_left(t, begin + filled);
  const int64_t count = left < most ? left : most;
  return count < kBlock - filled ? count : kBlock - filled;
}

EXTRAP_HD bool is_whole(const TensorEntry& t) { return t.extent >= t.numel; }

// The same for elements whose positions may begin anywhere and have gaps: each extent is cut out of whole blocks.
__attribute__((noinline)) inline void fill_shard_noise(Noise kind, const RandomKey& key, const TensorEntry& t,
                                                       int64_t begin, float* to) {
  alignas(64) float block[kBlock];
  for (int64_t filled = 0; filled < kBlock;) {
    const int64_t first = position(t, begin + filled), skip = first % 2;
    fill_noise(kind, key, static_cast<uint64_t>(first - skip), block);
    const int64_t count = in_extent(t, begin, filled, kBlock - skip);
    memcpy(to + filled, block + skip, static_cast<size_t>(count) * sizeof(float));
    filled += count;
  }
}

// Noise of the kBlock elements from element `begin` of a tensor, which is even.
EXTRAP_HD void fill_noise(Noise kind, const RandomKey& key, const TensorEntry& t, int64_t begin, float* to) {
  if (is_whole(t) && t.offset % 2 == 0)
    fill_noise(kind, key, static_cast<uint64_t>(t.offset + begin), to);
  else
    fill_shard_noise(kind, key, t, begin, to);
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
EXTRAP_HD void fill_rounding(RandomKey key, uint64_t position, uint32_t* to) {
  const WordVector first = load_bytes<WordVector>(kMemoryOrder.offset) + static_cast<uint32_t>(position);
  EXTRAP_UNROLL
  for (int i = 0; i < kBlock; i += kFloats) {
    const WordVector bits = key.bits(first + static_cast<uint32_t>(i), static_cast<uint32_t>(position >> 32));
    memcpy(to + i, &bits, sizeof bits);
  }
}

// The same for any elements of a tensor.
__attribute__((noinline)) inline void fill_scattered_rounding(RandomKey key, const TensorEntry& t, int64_t begin,
                                                              uint32_t* to) {
  for (int64_t filled = 0; filled < kBlock;) {
    const uint64_t first = static_cast<uint64_t>(position(t, begin + filled));
    const int64_t count = in_extent(t, begin, filled, kBlock);
    for (uint64_t at = first; at < first + static_cast<uint64_t>(count); ++at, ++filled)
      to[filled] = key.bits(static_cast<uint32_t>(at), static_cast<uint32_t>(at >> 32));
  }
}

// Bits that round the kBlock elements from element `begin` of a tensor on.
EXTRAP_HD void fill_rounding(RandomKey key, const TensorEntry& t, int64_t begin, uint32_t* to) {
  const uint64_t first = static_cast<uint64_t>(t.offset + begin);
  if (is_whole(t) && static_cast<uint32_t>(first) <= 0xffffffffu - kBlock)
    fill_rounding(key, first, to);
  else
    fill_scattered_rounding(key, t, begin, to);
}

}  // namespace EXTRAP_ISA
}  // namespace extrap
