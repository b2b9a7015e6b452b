// Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011).
#pragma once

#include "core/ops.h"

namespace extrap {
inline namespace EXTRAP_ISA {

// U: uint32_t, or a vector of them with one counter in each lane.
template <class U>
struct PhiloxWords {
  U word[4];
};

template <class U>
EXTRAP_HD PhiloxWords<U> philox4x32(PhiloxWords<U> c, uint64_t key) {
  uint32_t k0 = static_cast<uint32_t>(key);
  uint32_t k1 = static_cast<uint32_t>(key >> 32);
  EXTRAP_UNROLL
  for (int round = 0; round < 10; ++round) {
    U high0, low0, high1, low1;
    Ops<U>::multiply_wide(c.word[0], 0xD2511F53u, high0, low0);
    Ops<U>::multiply_wide(c.word[2], 0xCD9E8D57u, high1, low1);
    c = {{high1 ^ c.word[1] ^ k0, low1, high0 ^ c.word[3] ^ k1, low0}};
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return c;
}

}  // namespace EXTRAP_ISA
}  // namespace extrap
