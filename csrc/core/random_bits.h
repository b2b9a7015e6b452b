// Random bits: a function of a key, the parameter, its step and the position of an element, and of nothing else, so
// that chunks, threads, shards and backends see the same. Twin: extrap_kernels/reference/random_bits.py.
#pragma once

#include "core/philox.h"

namespace extrap {
inline namespace EXTRAP_ISA {

// In the index of a parameter: sets the bits that round its state apart from those of its noise.
constexpr uint32_t kRoundingStream = 0x80000000u;

// Two words of Philox, once for a parameter and step; the bits of its elements are hashes of them, which are cheaper.
struct RandomKey {
  uint32_t first, second;

  static EXTRAP_HD RandomKey of(uint64_t key, uint32_t index, double step) {
    const auto words = philox4x32<uint32_t>({{0u, 0u, index, static_cast<uint32_t>(step)}}, key);
    return {words.word[0], words.word[1]};
  }

  // 32 bits for the position with these halves. U: uint32_t, or a vector of them. High: U, or uint32_t where all have
  // it in common.
  template <class U, class High>
  EXTRAP_HD U bits(U low, High high) const {
    return hash(counter(low, high));
  }

  // What is hashed: it counts up with the lower half.
  template <class U, class High>
  EXTRAP_HD U counter(U low, High high) const {
    return low + (first + high * 0x9E3779B9u);
  }

  template <class U>
  EXTRAP_HD U hash(U h) const {
    h = (h ^ (h >> 16)) * 0x7feb352du;
    h = (h ^ (h >> 15) ^ second) * 0x846ca68bu;
    return h ^ (h >> 16);
  }
};

}  // namespace EXTRAP_ISA
}  // namespace extrap
