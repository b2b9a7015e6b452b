// Random bits for rounding the state: a function of the seed, the parameter, the step and the position, and of nothing
// else, so that replicas and shards round alike. Twin: extrap_kernels/reference/rounding.py.
#pragma once

#include "core/philox.h"

namespace extrap {
inline namespace EXTRAP_ISA {

// Two words of the stream of a parameter and step; the bits of its elements are hashes of them.
struct RoundingKey {
  uint32_t first, second;

  // The highest bit of the index sets the counter apart from those of the noise.
  static EXTRAP_HD RoundingKey of(uint64_t seed, uint32_t index, double step) {
    const auto words = philox4x32<uint32_t>({{0u, 0u, index | 0x80000000u, static_cast<uint32_t>(step)}}, seed);
    return {words.word[0], words.word[1]};
  }

  // 32 bits for the element whose position in the whole tensor has these halves. U: uint32_t, or a vector of them.
  // High: U, or uint32_t where all of them have it in common.
  template <class U, class High>
  EXTRAP_HD U bits(U low, High high) const {
    U h = low ^ first;
    h = h + high * 0x9E3779B9u;
    h = (h ^ (h >> 16)) * 0x7feb352du;
    h = (h ^ (h >> 15) ^ second) * 0x846ca68bu;
    return h ^ (h >> 16);
  }
};

}  // namespace EXTRAP_ISA
}  // namespace extrap
