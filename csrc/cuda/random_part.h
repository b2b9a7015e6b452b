// Random numbers for the elements of a part: the bits that round its state, and its noise.
#pragma once

#include "core/noise.h"
#include "core/random_bits.h"
#include "core/table.h"
#include "cuda/lanes.h"

namespace extrap::cuda {

// 32 bits for each element of a part of the chunk that begins at `begin`. sharded: whether the tensor is part of one.
template <class Words, class Elements>
EXTRAP_HD Words bits_of(const RandomKey& key, const TensorEntry& t, bool sharded, int64_t begin, const Elements& part) {
  if (!sharded) {
    // A chunk does not cross a multiple of 2^32: its elements have the upper half of their positions in common.
    const Words low = Words::each([&](int k) { return static_cast<uint32_t>(begin) + part[k]; });
    return key.bits(low, static_cast<uint32_t>(begin >> 32));
  }
  Words bits;
  EXTRAP_NO_UNROLL
  for (int e = 0; e < Words::kLanes; ++e) {
    const uint64_t p = static_cast<uint64_t>(position(t, begin + part[e]));
    bits.set(e, key.bits(static_cast<uint32_t>(p), static_cast<uint32_t>(p >> 32)));
  }
  return bits;
}

// y with its noise, of which scaled(noise, k) is that of element k. It is added as it is drawn: to keep it until all is
// drawn would take registers.
template <class V, class Elements, class Scaled>
EXTRAP_HD V added_noise(Noise kind, const RandomKey& key, const TensorEntry& t, bool sharded, int64_t begin,
                        const Elements& part, V y, const Scaled& scaled) {
  if (!sharded && part.stride == 1) {
    // Both `begin` and `part.at` are even.
    EXTRAP_UNROLL
    for (int k = 0; k < V::kLanes; k += 2) {
      const uint32_t low = static_cast<uint32_t>(begin >> 1) + static_cast<uint32_t>(part.at + k) / 2;
      const NoisePair<float> n = noise_of<float>(kind, key.bits(low, static_cast<uint32_t>(begin >> 33)));
      y.lane[k] = y[k] + scaled(n.even, k);
      y.lane[k + 1] = y[k + 1] + scaled(n.odd, k + 1);
    }
    return y;
  }
  // The elements lie apart, or in the whole tensor they may begin anywhere and an extent may end among them.
  EXTRAP_NO_UNROLL
  for (int e = 0; e < V::kLanes; ++e) {
    const int64_t element = begin + part[e];
    const int64_t at_whole = sharded ? position(t, element) : element;
    const NoisePair<float> n = noise_around(kind, key, at_whole);
    const float noise = at_whole % 2 == 0 ? n.even : n.odd;
    y = V::each([&](int k) { return k == e ? y[k] + scaled(noise, k) : y[k]; });
  }
  return y;
}

}  // namespace extrap::cuda
