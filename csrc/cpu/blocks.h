// Blocks of 8-bit codes, from memory to vectors and back.
#pragma once

#include <cstring>

#include "core/formats/block8.h"
#include "cpu/simd.h"

namespace extrap {
inline namespace EXTRAP_ISA {

// As many codes as V has lanes, all of one block.
template <class V, bool kSign>
EXTRAP_HD V load_codes(const uint8_t* codes, uint32_t exponent) {
  return BlockCodec<kSign>::template decode<V>(widen_bytes(load_bytes<ByteVector>(codes)), BlockScale(exponent));
}

// The numbers of kBlock elements. random: a word for each. Out of line, as it is long and each kernel needs it.
template <bool kSign>
__attribute__((noinline)) void store_codes(const float* kept, const uint32_t* random, uint8_t* codes,
                                           uint8_t* exponents) {
  using Codec = BlockCodec<kSign>;
  EXTRAP_UNROLL
  for (int block = 0; block < kBlock; block += kBlockNumbers) {
    WordVector largest = {};
    for (int i = block; i < block + kBlockNumbers; i += kFloats)
      largest = larger(largest, Codec::magnitude(load_bytes<FloatVector>(kept + i)) +
                                    Codec::added(load_bytes<WordVector>(random + i)));
    const uint32_t exponent = Codec::exponent(largest_lane(largest));
    exponents[block / kBlockNumbers] = static_cast<uint8_t>(exponent);
    const BlockScale scale(exponent);
    for (int i = block; i < block + kBlockNumbers; i += kFloats) {
      const WordVector code =
          Codec::encode(load_bytes<FloatVector>(kept + i), scale, load_bytes<WordVector>(random + i));
      const ByteVector bytes = narrow_to_bytes(code);
      memcpy(codes + i, &bytes, sizeof bytes);
    }
  }
}

}  // namespace EXTRAP_ISA
}  // namespace extrap
