// Consecutive numbers of one format in the registers of a thread, and their way from and to memory.
#pragma once

#include "core/formats.h"
#include "cuda/memory.h"

namespace extrap::cuda {

// The bits of number i among numbers that lie in 32-bit words as they do in memory; two of 16 bits share a word.
template <class Stored>
EXTRAP_HD Stored extract(const uint32_t* words, int i) {
  if constexpr (sizeof(Stored) == 2) {
    return static_cast<Stored>(words[i / 2] >> (16 * (i % 2)));
  } else {
    Stored value;
    memcpy(&value, words + i * (sizeof(Stored) / 4), sizeof value);
    return value;
  }
}

template <class Stored>
EXTRAP_HD void insert(Stored value, int i, uint32_t* words) {
  if constexpr (sizeof(Stored) == 2) {
    const uint32_t half = static_cast<uint32_t>(value) << (16 * (i % 2));
    words[i / 2] = i % 2 == 0 ? half : words[i / 2] | half;
  } else {
    memcpy(words + i * (sizeof(Stored) / 4), &value, sizeof value);
  }
}

// A single number.
template <class T>
EXTRAP_HD typename Format<T>::Value load_one(const T* from) {
  using Value = typename Format<T>::Value;
  using Stored = typename Format<T>::template Stored<Value>;
  return Format<T>::template decode<Value>(cuda::load(reinterpret_cast<const Stored*>(from)));
}

template <class T>
EXTRAP_HD void store_one(T* to, typename Format<T>::Value value) {
  using Stored = typename Format<T>::template Stored<typename Format<T>::Value>;
  cuda::store<Reuse::soon>(reinterpret_cast<Stored*>(to), Format<T>::encode(value));
}

// kCount consecutive numbers of format T, held as they are stored, which takes fewer registers than the arithmetic
// type.
template <class T, int kCount>
struct Tile {
  using Value = typename Format<T>::Value;
  using Stored = typename Format<T>::template Stored<Value>;
  static constexpr int kInVec = static_cast<int>(sizeof(Vec16) / sizeof(T));
  static_assert(kCount % kInVec == 0);
  uint32_t words[kCount * sizeof(T) / 4];

  EXTRAP_HD Value operator[](int k) const { return Format<T>::template decode<Value>(extract<Stored>(words, k)); }

  EXTRAP_HD void set(int k, Value value) { insert(Format<T>::encode(value), k, words); }

  // k is even.
  EXTRAP_HD void set_pair(int k, Value low, Value high) {
    if constexpr (sizeof(T) == 2) {
      words[k / 2] = Format<T>::encode_pair(low, high);
    } else {
      set(k, low);
      set(k + 1, high);
    }
  }

  // 128 bits at a time if `vector`, else one by one as far as `count` goes, then zeros.
  EXTRAP_HD void load(const T* from, bool vector, int count) {
    if (vector) {
      EXTRAP_UNROLL
      for (int v = 0; v < kCount / kInVec; ++v) {
        const Vec16 vec = cuda::load(reinterpret_cast<const Vec16*>(from) + v);
        EXTRAP_UNROLL
        for (int w = 0; w < 4; ++w) words[4 * v + w] = vec.word[w];
      }
    } else {
      EXTRAP_UNROLL
      for (int k = 0; k < kCount; ++k)
        insert(k < count ? cuda::load(reinterpret_cast<const Stored*>(from) + k) : Stored{}, k, words);
    }
  }

  template <Reuse kReuse>
  EXTRAP_HD void store(T* to, bool vector, int count) const {
    if (vector) {
      EXTRAP_UNROLL
      for (int v = 0; v < kCount / kInVec; ++v)
        cuda::store<kReuse>(reinterpret_cast<Vec16*>(to) + v,
                            Vec16{{words[4 * v], words[4 * v + 1], words[4 * v + 2], words[4 * v + 3]}});
    } else {
      EXTRAP_UNROLL
      for (int k = 0; k < kCount; ++k)
        if (k < count) cuda::store<kReuse>(reinterpret_cast<Stored*>(to) + k, extract<Stored>(words, k));
    }
  }
};

}  // namespace extrap::cuda
