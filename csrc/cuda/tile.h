// Which elements a thread takes, and numbers of one format in its registers on their way from and to memory.
#pragma once

#include "core/formats.h"
#include "core/layout.h"
#include "cuda/launch_table.h"
#include "cuda/memory.h"

namespace extrap::cuda {

// The bits of number i among numbers that lie in 32-bit words as they do in memory; shorter ones share a word.
template <class Stored>
EXTRAP_HD Stored extract(const uint32_t* words, int i) {
  constexpr int kInWord = 4 / static_cast<int>(sizeof(Stored)), kBits = 8 * static_cast<int>(sizeof(Stored));
  if constexpr (sizeof(Stored) < 4) {
    return static_cast<Stored>(words[i / kInWord] >> (kBits * (i % kInWord)));
  } else {
    Stored value;
    memcpy(&value, words + i * (sizeof(Stored) / 4), sizeof value);
    return value;
  }
}

template <class Stored>
EXTRAP_HD void insert(Stored value, int i, uint32_t* words) {
  constexpr int kInWord = 4 / static_cast<int>(sizeof(Stored)), kBits = 8 * static_cast<int>(sizeof(Stored));
  if constexpr (sizeof(Stored) < 4) {
    const int shift = kBits * (i % kInWord);
    words[i / kInWord] = (words[i / kInWord] & ~(((1u << kBits) - 1) << shift)) | static_cast<uint32_t>(value) << shift;
  } else {
    memcpy(words + i * (sizeof(Stored) / 4), &value, sizeof value);
  }
}

// Where numbers lie that are in two tensors.
struct Float24Pointer {
  Float24* high;
  LowByte* low;

  friend EXTRAP_HD Float24Pointer operator+(Float24Pointer p, int64_t n) { return {p.high + n, p.low + n}; }
};

// Where numbers of format T lie. low: where the rest of those that are split does.
template <class T>
EXTRAP_HD auto pointer_to(void* numbers, void* low) {
  if constexpr (kIsSplit<T>)
    return Float24Pointer{static_cast<T*>(numbers), static_cast<LowByte*>(low)};
  else
    return static_cast<T*>(numbers);
}

template <class T>
using PointerTo = decltype(pointer_to<T>(nullptr, nullptr));

// Of x, as a table has it.
template <class T>
EXTRAP_HD PointerTo<T> base_pointer(const LaunchTable& table, int tensor) {
  return pointer_to<T>(table.pointer<void>(kBase, tensor),
                       kIsSplit<T> ? table.pointer<void>(kBaseLow, tensor) : nullptr);
}

// A single number.
template <class T>
EXTRAP_HD typename Format<T>::Value load_one(const T* from) {
  using Value = typename Format<T>::Value;
  using Stored = typename Format<T>::template Stored<Value>;
  return Format<T>::template decode<Value>(cuda::load(reinterpret_cast<const Stored*>(from)));
}

EXTRAP_HD float load_one(Float24Pointer from) {
  return Format<Float24>::join<float>(cuda::load(&from.high->high), cuda::load(&from.low->bits));
}

template <class T>
EXTRAP_HD void store_one(T* to, typename Format<T>::Value value) {
  using Stored = typename Format<T>::template Stored<typename Format<T>::Value>;
  cuda::store(reinterpret_cast<Stored*>(to), Format<T>::encode(value));
}

// The elements that a thread takes at a time, of a chunk or segment. Those of a warp follow each other in every access:
// consecutive elements of each thread where all buffers are aligned, since one access moves them; else single ones, so
// that it does not matter where a buffer begins.
template <int kCount>
struct Part {
  int at, left;  // the first element, and how many there are from it on
  int stride;    // to the next one

  EXTRAP_HD Part(bool aligned, int thread, int count)
      : at(aligned ? thread * kCount : thread / kWarp * kWarp * kCount + thread % kWarp),
        left(count - at),
        stride(aligned ? 1 : kWarp) {}

  EXTRAP_HD void advance(int threads) {
    at += threads * kCount;
    left -= threads * kCount;
  }

  EXTRAP_HD int operator[](int k) const { return at + k * stride; }
  EXTRAP_HD bool has(int k) const { return k * stride < left; }
  EXTRAP_HD bool in_one_access() const { return stride == 1 && left >= kCount; }
};

// One that is known to have all its elements, which follow each other.
template <int kCount>
struct WholePart {
  static constexpr int stride = 1;
  int at;

  EXTRAP_HD int operator[](int k) const { return at + k; }
  EXTRAP_HD bool has(int) const { return true; }
  EXTRAP_HD bool in_one_access() const { return true; }
};

// The numbers of a part (Elements: Part or WholePart) in format T, held as they are stored, which takes fewer registers
// than the arithmetic type.
template <class T, int kCount>
struct Tile {
  using Value = typename Format<T>::Value;
  using Stored = typename Format<T>::template Stored<Value>;
  Packet<kCount * sizeof(T)> packet;

  static EXTRAP_HD bool aligned(const void* buffer) { return reinterpret_cast<uintptr_t>(buffer) % sizeof packet == 0; }

  EXTRAP_HD Value operator[](int k) const { return Format<T>::template decode<Value>(extract<Stored>(packet.word, k)); }

  EXTRAP_HD void set(int k, Value value) { insert(Format<T>::encode(value), k, packet.word); }

  EXTRAP_HD void clear() { packet = {}; }

  // As a vector of kCount lanes.
  template <class V>
  EXTRAP_HD V all() const {
    return V::each([&](int k) { return (*this)[k]; });
  }

  // Two numbers of 16 bits are put into their word together, which takes fewer instructions.
  template <class V>
  EXTRAP_HD void set_all(V values) {
    EXTRAP_UNROLL
    for (int k = 0; k < kCount; k += 2) {
      if constexpr (sizeof(T) == 2) {
        packet.word[k / 2] = Format<T>::encode_pair(values[k], values[k + 1]);
      } else {
        set(k, values[k]);
        set(k + 1, values[k + 1]);
      }
    }
  }

  // Rounded by 32 random bits each.
  template <class V, class Words>
  EXTRAP_HD void set_all_by(Words random, V values) {
    EXTRAP_UNROLL
    for (int k = 0; k < kCount; ++k) insert(Format<T>::encode(values[k], random[k]), k, packet.word);
  }

  EXTRAP_HD void load_packet(const T* from) { packet = cuda::load(reinterpret_cast<const decltype(packet)*>(from)); }

  // Zeros where there are no elements. place(element): where it lies.
  template <class Elements, class Place>
  EXTRAP_HD void load_numbers(const T* from, const Elements& part, const Place& place) {
    packet = {};
    EXTRAP_UNROLL
    for (int k = 0; k < kCount; ++k)
      insert(part.has(k) ? cuda::load(reinterpret_cast<const Stored*>(from) + place(part[k])) : Stored{}, k,
             packet.word);
  }

  template <class Elements>
  EXTRAP_HD void load_numbers(const T* from, const Elements& part) {
    load_numbers(from, part, [](int element) { return element; });
  }

  template <class Elements, class Place>
  EXTRAP_HD void load(const T* from, const Elements& part, const Place& place) {
    if (part.in_one_access())
      load_packet(from + place(part.at));
    else
      load_numbers(from, part, place);
  }

  EXTRAP_HD void store_packet(T* to) const { cuda::store(reinterpret_cast<decltype(packet)*>(to), packet); }

  template <class Elements>
  EXTRAP_HD void store_numbers(T* to, const Elements& part) const {
    EXTRAP_UNROLL
    for (int k = 0; k < kCount; ++k)
      if (part.has(k)) cuda::store(reinterpret_cast<Stored*>(to) + part[k], extract<Stored>(packet.word, k));
  }

  template <class Elements>
  EXTRAP_HD void store(T* to, const Elements& part) const {
    if (part.in_one_access())
      store_packet(to + part.at);
    else
      store_numbers(to, part);
  }
};

// The upper halves of two words, and the second lowest bytes of four, each as a word, the first one lowest.
EXTRAP_HD uint32_t upper_halves(uint32_t a, uint32_t b) {
#if defined(__CUDA_ARCH__)
  return __byte_perm(a, b, 0x7632);
#else
  return a >> 16 | (b & 0xffff0000u);
#endif
}

EXTRAP_HD uint32_t second_bytes(uint32_t a, uint32_t b, uint32_t c, uint32_t d) {
#if defined(__CUDA_ARCH__)
  return __byte_perm(__byte_perm(a, b, 0x0051), __byte_perm(c, d, 0x0051), 0x5410);
#else
  return (a >> 8 & 0xffu) | (b & 0xff00u) | (c & 0xff00u) << 8 | (d & 0xff00u) << 16;
#endif
}

// Numbers that are in two tensors.
template <int kCount>
struct Tile<Float24, kCount> {
  Tile<BFloat16, kCount> high;
  Tile<LowByte, kCount> low;

  static EXTRAP_HD bool aligned(Float24Pointer p) {
    return Tile<BFloat16, kCount>::aligned(p.high) && Tile<LowByte, kCount>::aligned(p.low);
  }

  EXTRAP_HD float operator[](int k) const {
    return Format<Float24>::join<float>(extract<uint16_t>(high.packet.word, k), extract<uint8_t>(low.packet.word, k));
  }

  // Of a number that is rounded.
  EXTRAP_HD void set(int k, float value) {
    const uint32_t bits = Ops<float>::bits(value);
    insert(static_cast<uint16_t>(Format<Float24>::high(bits)), k, high.packet.word);
    insert(static_cast<uint8_t>(Format<Float24>::low(bits)), k, low.packet.word);
  }

  EXTRAP_HD void clear() { high.packet = {}, low.packet = {}; }

  template <class V>
  EXTRAP_HD V all() const {
    return V::each([&](int k) { return (*this)[k]; });
  }

  template <class V>
  EXTRAP_HD void set_all(V values) {
    EXTRAP_UNROLL
    for (int k = 0; k < kCount; k += 4) {
      const auto bits = [&](int i) { return Ops<float>::bits(values[k + i]); };
      high.packet.word[k / 2] = upper_halves(bits(0) + 0x8000u, bits(1) + 0x8000u);
      high.packet.word[k / 2 + 1] = upper_halves(bits(2) + 0x8000u, bits(3) + 0x8000u);
      low.packet.word[k / 4] = second_bytes(bits(0), bits(1), bits(2), bits(3));
    }
  }

  EXTRAP_HD void load_packet(Float24Pointer from) {
    high.load_packet(reinterpret_cast<const BFloat16*>(from.high));
    low.load_packet(from.low);
  }

  template <class Elements>
  EXTRAP_HD void load_numbers(Float24Pointer from, const Elements& part) {
    load_numbers(from, part, [](int element) { return element; });
  }

  template <class Elements, class Place>
  EXTRAP_HD void load_numbers(Float24Pointer from, const Elements& part, const Place& place) {
    high.load_numbers(reinterpret_cast<const BFloat16*>(from.high), part, place);
    low.load_numbers(from.low, part, place);
  }

  template <class Elements, class Place>
  EXTRAP_HD void load(Float24Pointer from, const Elements& part, const Place& place) {
    if (part.in_one_access())
      load_packet(from + place(part.at));
    else
      load_numbers(from, part, place);
  }

  EXTRAP_HD void store_packet(Float24Pointer to) const {
    high.store_packet(reinterpret_cast<BFloat16*>(to.high));
    low.store_packet(to.low);
  }

  template <class Elements>
  EXTRAP_HD void store_numbers(Float24Pointer to, const Elements& part) const {
    high.store_numbers(reinterpret_cast<BFloat16*>(to.high), part);
    low.store_numbers(to.low, part);
  }
};

}  // namespace extrap::cuda
