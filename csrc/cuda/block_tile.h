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

  template <class Place>
  EXTRAP_HD void load(const uint8_t* from, const Part<kCount>& part, const Place& place) {
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
  EXTRAP_HD void store(uint8_t* to, const Part<kCount>& part) const {
    EXTRAP_UNROLL
    for (int k = 0; k < kCount; ++k)
      if (part.has(k) && part[k] % kBlockNumbers == 0)
        cuda::store(to + part[k] / kBlockNumbers, static_cast<uint8_t>(of[k]));
  }
};

// Number k of a buffer's part.
template <int kCount>
EXTRAP_HD float decoded(bool is_signed, const Tile<Block8, kCount>& codes, const BlockScale& block, int k) {
  const uint32_t code = extract<uint8_t>(codes.packet.word, k);
  return is_signed ? BlockCodec<kSigned>::decode<float>(code, block)
                   : BlockCodec<kUnsigned>::decode<float>(code, block);
}

// of_one_block: whether all of the part are, so that their scale is made once.
template <int kCount>
EXTRAP_HD Lanes<float, kCount> decoded(bool is_signed, const Tile<Block8, kCount>& codes, const Exponents<kCount>& e,
                                       bool of_one_block) {
  using V = Lanes<float, kCount>;
  if (of_one_block) {
    const BlockScale block(e.of[0]);
    return V::each([&](int k) { return decoded(is_signed, codes, block, k); });
  }
  return V::each([&](int k) { return decoded(is_signed, codes, BlockScale(e.of[k]), k); });
}

// A part's numbers of one buffer on their way to memory. `largest`: what their exponents are taken from, of which those
// of all lanes of a block are to be compared; where the elements follow each other, the first one is the largest of
// them.
template <int kCount>
struct PendingCodes {
  Lanes<float, kCount> kept;
  uint32_t largest[kCount];

  // random: a word for each.
  EXTRAP_HD void set(bool is_signed, const Lanes<float, kCount>& values, const Lanes<uint32_t, kCount>& random,
                     const Part<kCount>& part) {
    kept = Lanes<float, kCount>::each(
        [&](int k) { return is_signed ? values[k] : BlockCodec<kUnsigned>::kept(values[k]); });
    EXTRAP_UNROLL
    for (int k = 0; k < kCount; ++k) {
      const uint32_t added =
          is_signed ? BlockCodec<kSigned>::added(random[k]) : BlockCodec<kUnsigned>::added(random[k]);
      largest[k] = part.has(k) ? BlockCodec<kSigned>::magnitude(kept[k]) + added : 0;
    }
    if (part.stride != 1) return;
    EXTRAP_UNROLL
    for (int k = 1; k < kCount; ++k) largest[0] = largest[k] > largest[0] ? largest[k] : largest[0];
  }

  EXTRAP_HD void encode(bool is_signed, const Lanes<uint32_t, kCount>& random, const Part<kCount>& part,
                        Tile<Block8, kCount>& codes, Exponents<kCount>& e) const {
    if (part.stride == 1) {
      e.set_all(BlockCodec<kSigned>::exponent(largest[0]));
      const BlockScale block(e.of[0]);
      EXTRAP_UNROLL
      for (int k = 0; k < kCount; ++k) insert(code(is_signed, block, random, k), k, codes.packet.word);
      return;
    }
    EXTRAP_UNROLL
    for (int k = 0; k < kCount; ++k) {
      e.of[k] = BlockCodec<kSigned>::exponent(largest[k]);
      insert(code(is_signed, BlockScale(e.of[k]), random, k), k, codes.packet.word);
    }
  }

  EXTRAP_HD uint8_t code(bool is_signed, const BlockScale& block, const Lanes<uint32_t, kCount>& random, int k) const {
    return static_cast<uint8_t>(is_signed ? BlockCodec<kSigned>::encode(kept[k], block, random[k])
                                          : BlockCodec<kUnsigned>::encode(kept[k], block, random[k]));
  }
};

}  // namespace extrap::cuda
