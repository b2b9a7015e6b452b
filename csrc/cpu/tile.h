// How the kernels move the buffers of a tensor, a block at a time: in vectors, in whatever formats the buffers have.
#pragma once

#include <cstring>
#include <type_traits>

#include "core/layout.h"
#include "core/rule.h"
#include "core/step.h"
#include "core/table.h"
#include "cpu/blocks.h"
#include "cpu/simd.h"

namespace extrap {
inline namespace EXTRAP_ISA {

// As many numbers as V has lanes, whatever their format.
template <class V, class T>
EXTRAP_HD V load(const T* from) {
  return Format<T>::template decode<V>(load_bytes<typename Format<T>::template Stored<V>>(from));
}

template <class V, class T>
EXTRAP_HD void store(T* to, V v) {
  const auto stored = Format<T>::encode(v);
  memcpy(to, &stored, sizeof stored);
}

// Past the caches if `streaming`.
template <class V, class T>
EXTRAP_HD void store(T* to, V v, bool streaming) {
  const auto stored = Format<T>::encode(v);
  if (streaming)
    store_streaming(to, stored);
  else
    memcpy(to, &stored, sizeof stored);
}

// The same of numbers that may lie in two tensors. low: the low bytes of those that do.
template <class V, class T>
EXTRAP_HD V load(const T* from, const uint8_t* low) {
  if constexpr (kIsSplit<T>)
    return Format<T>::template join<V>(Ops<V>::widen(load_bytes<typename Ops<V>::Half>(from)),
                                       widen_bytes(load_bytes<ByteVector>(low)));
  else
    return load<V>(from);
}

// Where a block of a tensor's buffers lies, from an element on.
template <class Rule, class Types>
struct Block {
  using Signs = typename Rule::Buffers;
  using Signed = typename Types::Signed;
  using Unsigned = typename Types::Unsigned;
  static constexpr int kBuffers = Signs::kCount;
  static constexpr bool kHasBlocks = kBuffers > 0 && kInBlocks<Signed>;
  static_assert(kInBlocks<Signed> == kInBlocks<Unsigned>);
  static constexpr bool kSplitsBase = kIsSplit<typename Types::Base>;
  // Whether random bits round unsigned buffers, and whether they round anything.
  static constexpr bool kRoundsUnsigned = Signs::kAnyUnsigned && sizeof(Unsigned) < sizeof(typename Types::A);
  static constexpr bool kRounds = kSplitsBase || kHasBlocks || kRoundsUnsigned;

  typename Types::Param* y;
  typename Types::Base* base;
  uint8_t* base_low;
  void* buffers[kBuffers > 0 ? kBuffers : 1];
  uint8_t* exponents[kHasBlocks ? kBuffers : 1];
  const typename Types::Gradient* gradient;
  const typename Types::Gradient* local;  // null where there is none

  EXTRAP_HD Block(const TensorEntry& t, int64_t at)
      : y(static_cast<typename Types::Param*>(t.y) + at),
        base(static_cast<typename Types::Base*>(t.base) + at),
        base_low(kSplitsBase ? static_cast<uint8_t*>(t.base_low) + at : nullptr),
        gradient(static_cast<const typename Types::Gradient*>(t.gradient) + at),
        local(t.local ? static_cast<const typename Types::Gradient*>(t.local) + at : nullptr) {
    for (int k = 0; k < kBuffers; ++k)
      buffers[k] = static_cast<char*>(t.buffers[k]) + static_cast<size_t>(at) * buffer_size(k);
    if constexpr (kHasBlocks)
      for (int k = 0; k < kBuffers; ++k) exponents[k] = static_cast<uint8_t*>(t.exponents[k]) + at / kBlockNumbers;
  }

  // Of one number.
  static constexpr EXTRAP_HD size_t buffer_size(int k) {
    return Signs::is_signed(k) ? sizeof(Signed) : sizeof(Unsigned);
  }

  // adopts: see StepConfig.
  template <class V>
  EXTRAP_HD V load_base(int i, bool adopts) const {
    using P = typename Types::Param;
    const V x = load<V>(base + i, base_low + (kSplitsBase ? i : 0));
    return adopts ? adopted_base(x, Format<P>::template decode<V>(Format<P>::encode(x)), load<V>(y + i)) : x;
  }

  // x as it is stored. random: as in store_buffer(); null: x has no more bits than are, but a NaN may have others.
  template <class V>
  static EXTRAP_HD V kept_base(V x, const uint32_t* random) {
    if constexpr (kSplitsBase) {
      using Word = typename Ops<V>::Word;
      return Format<typename Types::Base>::rounded(x, random ? load_bytes<Word>(random) : Word{});
    } else {
      return x;
    }
  }

  template <class V>
  EXTRAP_HD void store_base(int i, V x) const {
    if constexpr (kSplitsBase) {
      const auto bits = Ops<V>::bits(x);
      const auto high = Ops<V>::narrow(Format<typename Types::Base>::high(bits));
      const ByteVector low = narrow_to_bytes(Format<typename Types::Base>::low(bits));
      memcpy(base + i, &high, sizeof high);
      memcpy(base_low + i, &low, sizeof low);
    } else if (!base_is_y()) {
      store(base + i, x);
    }
  }

  template <class V>
  EXTRAP_HD V load_buffer(int k, int i) const {
    if constexpr (kHasBlocks) {
      const uint8_t* codes = static_cast<const uint8_t*>(buffers[k]) + i;
      const uint32_t exponent = exponents[k][i / kBlockNumbers];
      return Signs::is_signed(k) ? load_codes<V, kSigned>(codes, exponent) : load_codes<V, kUnsigned>(codes, exponent);
    } else {
      return Signs::is_signed(k) ? load<V>(static_cast<const Signed*>(buffers[k]) + i)
                                 : load<V>(static_cast<const Unsigned*>(buffers[k]) + i);
    }
  }

  // random: 32 bits for each element of the block, where buffers are rounded by them. kept: where to leave what is
  // stored by store_codes() once all elements of a block are known.
  template <class V>
  EXTRAP_HD void store_buffer(int k, int i, V v, const uint32_t* random, float* kept) const {
    if constexpr (kHasBlocks) {
      store(kept + i, Signs::is_signed(k) ? BlockCodec<kSigned>::kept(v) : BlockCodec<kUnsigned>::kept(v));
    } else if (Signs::is_signed(k)) {
      store(static_cast<Signed*>(buffers[k]) + i, v);
    } else if constexpr (kRoundsUnsigned) {
      const auto stored = Format<Unsigned>::encode(v, load_bytes<typename Ops<V>::Word>(random + i));
      memcpy(static_cast<Unsigned*>(buffers[k]) + i, &stored, sizeof stored);
    } else {
      store(static_cast<Unsigned*>(buffers[k]) + i, v);
    }
  }

  // Of `count` elements from here on.
  EXTRAP_HD void store_codes(int k, const float* kept, const uint32_t* random, int64_t count) const {
    uint8_t* codes = static_cast<uint8_t*>(buffers[k]);
    if (Signs::is_signed(k))
      extrap::store_codes<kSigned>(kept, random, count, codes, exponents[k]);
    else
      extrap::store_codes<kUnsigned>(kept, random, count, codes, exponents[k]);
  }

  // Whether the parameter holds x itself, which is then stored as y.
  EXTRAP_HD bool base_is_y() const {
    if constexpr (std::is_same_v<typename Types::Param, typename Types::Base>)
      return y == base;
    else
      return false;
  }
};

// The last elements of a tensor, fewer than a block: a padded copy, so that no byte outside is touched.
template <class Rule, class Types>
struct PaddedBlock {
  using Original = Block<Rule, Types>;
  static constexpr int kBuffers = Original::kBuffers;
  typename Types::Param y[kBlock] = {};
  typename Types::Base base[kBlock] = {};
  uint8_t base_low[kBlock] = {};
  alignas(8) char buffers[kBuffers > 0 ? kBuffers : 1][kBlock * sizeof(typename Types::A)] = {};
  uint8_t exponents[kBuffers > 0 ? kBuffers : 1][kBlock / kBlockNumbers] = {};
  typename Types::Gradient gradient[kBlock] = {}, local[kBlock] = {};
  Original original, block;
  size_t count;

  PaddedBlock(const Original& b, size_t n, bool with_y) : original(b), block(b), count(n) {
    if (with_y) memcpy(y, b.y, count * sizeof *y);
    memcpy(base, b.base, count * sizeof *base);
    if constexpr (Original::kSplitsBase) memcpy(base_low, b.base_low, count);
    memcpy(gradient, b.gradient, count * sizeof *gradient);
    if (b.local) memcpy(local, b.local, count * sizeof *local);
    block.y = y;
    block.base = base;
    block.base_low = base_low;
    block.gradient = gradient;
    block.local = b.local ? local : nullptr;
    for (int k = 0; k < kBuffers; ++k) {
      memcpy(buffers[k], b.buffers[k], count * Original::buffer_size(k));
      block.buffers[k] = buffers[k];
      if constexpr (Original::kHasBlocks) {
        memset(exponents[k], static_cast<int>(kSmallestExponent), sizeof exponents[k]);
        memcpy(exponents[k], b.exponents[k], count / kBlockNumbers);
        block.exponents[k] = exponents[k];
      }
    }
  }

  void store() const {
    memcpy(original.y, y, count * sizeof *y);
    if (!original.base_is_y()) memcpy(original.base, base, count * sizeof *base);
    if constexpr (Original::kSplitsBase) memcpy(original.base_low, base_low, count);
    for (int k = 0; k < kBuffers; ++k) {
      memcpy(original.buffers[k], buffers[k], count * Original::buffer_size(k));
      if constexpr (Original::kHasBlocks) memcpy(original.exponents[k], exponents[k], count / kBlockNumbers);
    }
  }
};

// Distances of the software prefetch, in bytes. The hardware's own stops at page ends: it left 10% of the bandwidth of
// a step, and a third of that of a pass that only reads, for which the second-level cache is near enough.
constexpr uintptr_t kPrefetchAhead = 2048, kPrefetchAheadOfSums = 4096;

enum class Prefetch { to_write, to_read, to_sum };

template <Prefetch kPurpose>
EXTRAP_HD void prefetch(const void* from, size_t bytes) {
  // As integers: the last lines may lie past the end of the tensor.
  const uintptr_t first =
      reinterpret_cast<uintptr_t>(from) + (kPurpose == Prefetch::to_sum ? kPrefetchAheadOfSums : kPrefetchAhead);
  for (uintptr_t line = first; line < first + bytes; line += 64)
    __builtin_prefetch(reinterpret_cast<const void*>(line), kPurpose == Prefetch::to_write,
                       kPurpose == Prefetch::to_sum ? 2 : 3);
}

template <Prefetch kPurpose, class Rule, class Types>
EXTRAP_HD void prefetch_base(const Block<Rule, Types>& b) {
  prefetch<kPurpose>(b.base, kBlock * sizeof *b.base);
  if constexpr (Block<Rule, Types>::kSplitsBase) prefetch<kPurpose>(b.base_low, kBlock);
}

template <class Rule, class Types>
EXTRAP_HD void prefetch(const Block<Rule, Types>& b, bool with_y) {
  if (with_y && !b.base_is_y()) prefetch<Prefetch::to_read>(b.y, kBlock * sizeof *b.y);
  prefetch_base<Prefetch::to_write>(b);
  for (int k = 0; k < b.kBuffers; ++k) prefetch<Prefetch::to_write>(b.buffers[k], kBlock * b.buffer_size(k));
  prefetch<Prefetch::to_read>(b.gradient, kBlock * sizeof *b.gradient);
  if (b.local) prefetch<Prefetch::to_read>(b.local, kBlock * sizeof *b.local);
}

// Elements of y before the first that is aligned to the vectors that bypass the caches; -1 where none is.
template <class Types>
EXTRAP_HD int64_t until_aligned(const TensorEntry& t) {
  constexpr uintptr_t kSize = sizeof(typename Types::Param);
  constexpr uintptr_t kAlignment = kVectorBytes / sizeof(typename Types::A) * kSize;
  const uintptr_t bytes = -reinterpret_cast<uintptr_t>(t.y) % kAlignment;
  return bytes % kSize == 0 ? static_cast<int64_t>(bytes / kSize) : -1;
}

}  // namespace EXTRAP_ISA
}  // namespace extrap
