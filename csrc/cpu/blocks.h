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
  using Codec = BlockCodec<kSign>;
  const ByteVector bytes = load_bytes<ByteVector>(codes);
  if constexpr (Ops<V>::kHasFloat16)
    return Codec::template decode_half<V>(kSign ? sign_extend(bytes) : zero_extend(bytes), BlockFactor(exponent));
  else
    return Codec::template decode<V>(widen_bytes(bytes), BlockScale(exponent));
}

// The numbers of kBlock elements. random: a word for each.
template <bool kSign>
EXTRAP_HD void store_codes(const float* kept, const uint32_t* random, uint8_t* codes, uint8_t* exponents) {
  using Codec = BlockCodec<kSign>;
  constexpr int kVectors = kBlock / kFloats, kOfBlock = kBlockNumbers / kFloats, kBlocks = kBlock / kBlockNumbers;
  FloatVector numbers[kVectors];
  WordVector added[kVectors], largest[kBlocks], words[kVectors];
  EXTRAP_UNROLL
  for (int i = 0; i < kVectors; ++i) {
    numbers[i] = load_bytes<FloatVector>(kept + i * kFloats);
    added[i] = Codec::added(load_bytes<WordVector>(random + i * kFloats));
    const WordVector rounded = Codec::magnitude(numbers[i]) + added[i];
    WordVector& of_block = largest[i / kOfBlock];
    of_block = i % kOfBlock == 0 ? rounded : larger(of_block, rounded);
  }
  const Words4 exponent = Codec::exponent(largest_of_each(largest));
  store_lower_bytes(exponents, exponent);
  const Words4 one = (exponent - 6u) << 23;
  EXTRAP_UNROLL
  for (int i = 0; i < kVectors; ++i)
    words[i] = Codec::encode(numbers[i], Ops<FloatVector>::from_bits(broadcast(one, i / kOfBlock)), added[i]);
  store_lower_bytes(codes, words);
  if (any_equal(exponent, kPoisonedExponent))
    for (int i = 0; i < kBlocks; ++i)
      if (exponent[i] == kPoisonedExponent) memset(codes + i * kBlockNumbers, 0, kBlockNumbers);
}

// Of `count` elements, whole blocks. Apart from the step itself: so many blocks on their way at a time hide how long
// the largest number of one takes to find.
template <bool kSign>
__attribute__((noinline)) void store_codes(const float* kept, const uint32_t* random, int64_t count, uint8_t* codes,
                                           uint8_t* exponents) {
  for (int64_t i = 0; i < count; i += kBlock)
    store_codes<kSign>(kept + i, random + i, codes + i, exponents + i / kBlockNumbers);
}

}  // namespace EXTRAP_ISA
}  // namespace extrap
