// The codes of a part's numbers, and the exponents that they share with those of neighbouring lanes.
#pragma once

#include "core/formats/block8.h"
#include "core/layout.h"
#include "cuda/lanes.h"
#include "cuda/tile.h"

namespace extrap::cuda {

// How many lanes have the numbers of a block: 4 consecutive ones each, or one in each of several blocks.
EXTRAP_HD int lanes_of_block(bool aligned, int part) { return aligned ? kBlockNumbers / part : kBlockNumbers; }

// Of a part. Where its elements follow each other, they are of one block, and its exponent is the first one.
template <int kCount>
struct Exponents {
  uint32_t of[kCount];

  template <class Elements, class Place>
  EXTRAP_HD void load(const uint8_t* from, const Elements& part, const Place& place) {
    if (part.in_one_access()) {
      set_all(cuda::load(from + place(part.at) / kBlockNumbers));
    } else {
      EXTRAP_UNROLL
      for (int k = 0; k < kCount; ++k)
        of[k] = part.has(k) ? cuda::load(from + place(part[k]) / kBlockNumbers) : kSmallestExponent;
    }
  }

  EXTRAP_HD void set_all(uint32_t exponent) {
    EXTRAP_UNROLL
    for (int k = 0; k < kCount; ++k) of[k] = exponent;
  }

  // By the lanes that have the first number of a block.
  template <class Elements>
  EXTRAP_HD void store(uint8_t* to, const Elements& part) const {
    EXTRAP_UNROLL
    for (int k = 0; k < kCount; ++k)
      if ((k == 0 || !part.in_one_access()) && part.has(k) && part[k] % kBlockNumbers == 0)
        cuda::store(to + part[k] / kBlockNumbers, static_cast<uint8_t>(of[k]));
  }
};

// As a word, the first one lowest.
EXTRAP_HD uint32_t upper_bytes(uint32_t a, uint32_t b, uint32_t c, uint32_t d) {
#if defined(__CUDA_ARCH__)
  return __byte_perm(__byte_perm(a, b, 0x0073), __byte_perm(c, d, 0x0073), 0x5410);
#else
  return a >> 24 | b >> 24 << 8 | c >> 24 << 16 | d >> 24 << 24;
#endif
}

// Code k of a part, in the upper byte of a word without other bits.
template <int kCount>
EXTRAP_HD uint32_t code_in_upper_byte(const Tile<Block8, kCount>& codes, int k) {
  return static_cast<uint32_t>(extract<uint8_t>(codes.packet.word, k)) << 24;
}

// Number k of a buffer's part.
template <int kCount>
EXTRAP_HD float decoded(bool is_signed, const Tile<Block8, kCount>& codes, const BlockFactor& block, int k) {
  const uint32_t code = code_in_upper_byte(codes, k);
  return is_signed ? BlockCodec<kSigned>::decode_upper_byte(code, block)
                   : BlockCodec<kUnsigned>::decode_upper_byte(code, block);
}

// of_one_block: whether all of the part are, so that their factor is made once.
template <int kCount>
EXTRAP_HD Lanes<float, kCount> decoded(bool is_signed, const Tile<Block8, kCount>& codes, const Exponents<kCount>& e,
                                       bool of_one_block) {
  using V = Lanes<float, kCount>;
  if (of_one_block) {
    const BlockFactor block(e.of[0]);
    return V::each([&](int k) { return decoded(is_signed, codes, block, k); });
  }
  return V::each([&](int k) { return decoded(is_signed, codes, BlockFactor(e.of[k]), k); });
}

// A part's numbers of one buffer on their way to memory. `largest`: what their exponents are taken from, of which those
// of all lanes of a block are to be compared; where the elements follow each other, the first one is the largest of
// them.
template <int kCount>
struct PendingCodes {
  Lanes<float, kCount> kept;
  uint32_t largest[kCount];

  // random: a word for each.
  template <class Elements>
  EXTRAP_HD void set(bool is_signed, const Lanes<float, kCount>& values, const Lanes<uint32_t, kCount>& random,
                     const Elements& part) {
    kept = Lanes<float, kCount>::each(
        [&](int k) { return is_signed ? values[k] : BlockCodec<kUnsigned>::kept(values[k]); });
    EXTRAP_UNROLL
    for (int k = 0; k < kCount; ++k) {
      const uint32_t added =
          is_signed ? BlockCodec<kSigned>::random_added(random[k]) : BlockCodec<kUnsigned>::random_added(random[k]);
      largest[k] = part.has(k) ? BlockCodec<kSigned>::magnitude(kept[k]) + added : 0;
    }
    if (part.stride == 1) {
      EXTRAP_UNROLL
      for (int k = 1; k < kCount; ++k) largest[0] = largest[k] > largest[0] ? largest[k] : largest[0];
    }
    EXTRAP_UNROLL
    for (int k = 0; k < kCount; ++k)
      if (k == 0 || part.stride != 1)
        largest[k] += is_signed ? BlockCodec<kSigned>::kAdded : BlockCodec<kUnsigned>::kAdded;
  }

  template <class Elements>
  EXTRAP_HD void encode(bool is_signed, const Lanes<uint32_t, kCount>& random, const Elements& part,
                        Tile<Block8, kCount>& codes, Exponents<kCount>& e) const {
    static_assert(kCount == 4, "a part's codes are a word");
    uint32_t word[kCount];
    EXTRAP_UNROLL
    for (int k = 0; k < kCount; ++k) {
      e.of[k] = BlockCodec<kSigned>::exponent(largest[part.stride == 1 ? 0 : k]);
      const BlockFactor block(e.of[k]);
      word[k] = is_signed ? BlockCodec<kSigned>::encode_in_upper_byte(kept[k], block, random[k])
                          : BlockCodec<kUnsigned>::encode_in_upper_byte(kept[k], block, random[k]);
      if (part.stride != 1) word[k] &= block.kept_codes;
    }
    codes.packet.word[0] = upper_bytes(word[0], word[1], word[2], word[3]);
    if (part.stride == 1) codes.packet.word[0] &= BlockFactor(e.of[0]).kept_codes;
  }
};

}  // namespace extrap::cuda
