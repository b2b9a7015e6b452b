// Random numbers for elements that follow each other in memory: their noise, its amplitude, and the bits that round the
// state.
#pragma once

#include <iterator>

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

// Random numbers are made for so many elements at a time: enough for a loop whose constants stay in registers and whose
// turns do not wait for each other, and few enough that memory is not left idle meanwhile.
constexpr int kRun = 256;
static_assert(kRun % kBlock == 0);

// Noise of `count` elements from `position` on, or of a few more, as vectors are filled. The position is even, and its
// upper half is that of all.
template <Noise kKind>
__attribute__((noinline)) void fill_pairs(RandomKey key, uint64_t position, int64_t count, float* to) {
  const uint64_t pair = position >> 1;
  WordVector counter = load_bytes<WordVector>(kPairOrder.offset) +
                       key.counter(static_cast<uint32_t>(pair), static_cast<uint32_t>(pair >> 32));
  for (int64_t i = 0; i < count; i += 2 * kFloats) {
    const NoisePair<FloatVector> n = noise_of<FloatVector>(kKind, key.hash(counter));
    store(to + i, interleave_low(n.even, n.odd));
    store(to + i + kFloats, interleave_high(n.even, n.odd));
    counter = counter + static_cast<uint32_t>(kFloats);
  }
}

// The same for a kind known at run time: a branch in the loop would keep its constants out of registers.
template <int64_t kKind = 1>
EXTRAP_HD void fill_run(Noise kind, const RandomKey& key, uint64_t position, int64_t count, float* to) {
  if constexpr (kKind + 1 < static_cast<int64_t>(std::size(kNoiseNames)))
    if (static_cast<int64_t>(kind) != kKind) return fill_run<kKind + 1>(kind, key, position, count, to);
  fill_pairs<static_cast<Noise>(kKind)>(key, position, count, to);
}

EXTRAP_HD int64_t until_carry(int64_t position) { return (int64_t{1} << 32) - (position & 0xffffffff); }

// Whether the elements follow each other in the whole tensor, at positions with the same upper half.
EXTRAP_HD bool is_run(const TensorEntry& t, int64_t begin, int64_t count) {
  return t.extent >= t.numel && until_carry(t.offset + begin) >= count;
}

// How many of the elements from `begin` on, at most `count`, are a run.
EXTRAP_HD int64_t run_length(const TensorEntry& t, int64_t begin, int64_t count) {
  const int64_t left = extent_left(t, begin), carry = until_carry(position(t, begin));
  const int64_t length = left < carry ? left : carry;
  return length < count ? length : count;
}

// The noise of elements that are several runs, or begin at an odd position: each run is cut out of whole vectors.
__attribute__((noinline)) inline void fill_scattered_noise(Noise kind, const RandomKey& key, const TensorEntry& t,
                                                           int64_t begin, int64_t count, float* to) {
  alignas(64) float whole[kRun + 2 * kFloats];
  for (int64_t filled = 0, length; filled < count; filled += length) {
    const int64_t first = position(t, begin + filled), skip = first % 2;
    length = run_length(t, begin + filled, count - filled);
    fill_run(kind, key, static_cast<uint64_t>(first - skip), skip + length, whole);
    memcpy(to + filled, whole + skip, static_cast<size_t>(length) * sizeof(float));
  }
}

// Noise of `count` elements from element `begin` of a tensor, at most kRun; the array has room for whole blocks.
EXTRAP_HD void fill_noise(Noise kind, const RandomKey& key, const TensorEntry& t, int64_t begin, int64_t count,
                          float* to) {
  const int64_t first = t.offset + begin;
  if (first % 2 == 0 && is_run(t, begin, count))
    fill_run(kind, key, static_cast<uint64_t>(first), count, to);
  else
    fill_scattered_noise(kind, key, t, begin, count, to);
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

// Bits that round `count` elements from `position` on, or a few more; the upper half of the position is that of all.
__attribute__((noinline)) inline void fill_words(RandomKey key, uint64_t position, int64_t count, uint32_t* to) {
  WordVector counter = load_bytes<WordVector>(kMemoryOrder.offset) +
                       key.counter(static_cast<uint32_t>(position), static_cast<uint32_t>(position >> 32));
  for (int64_t i = 0; i < count; i += kFloats) {
    const WordVector bits = key.hash(counter);
    memcpy(to + i, &bits, sizeof bits);
    counter = counter + static_cast<uint32_t>(kFloats);
  }
}

// Bits that round `count` elements from element `begin` of a tensor; the array has room for a vector more.
EXTRAP_HD void fill_rounding(const RandomKey& key, const TensorEntry& t, int64_t begin, int64_t count, uint32_t* to) {
  if (is_run(t, begin, count)) return fill_words(key, static_cast<uint64_t>(t.offset + begin), count, to);
  for (int64_t filled = 0, length; filled < count; filled += length) {
    length = run_length(t, begin + filled, count - filled);
    fill_words(key, static_cast<uint64_t>(position(t, begin + filled)), length, to + filled);
  }
}

}  // namespace EXTRAP_ISA
}  // namespace extrap
