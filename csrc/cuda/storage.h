// From numbers as they lie in memory to the type of the arithmetic and back, in 128-bit packets where those fit.
#pragma once

#if defined(__CUDACC__)
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#endif

#include "core/dtype.h"
#include "cuda/memory.h"

namespace extrap::cuda {

// Numbers are held as they are stored, in 32-bit words, which takes fewer registers than the arithmetic type.
template <class T>
struct Storage;

template <>
struct Storage<float> {
  using Value = float;
  static EXTRAP_HD float unpack(float stored) { return stored; }
  static EXTRAP_HD float pack(float value) { return value; }
  static EXTRAP_HD float extract(const uint32_t* words, int i) { return Ops<float>::from_bits(words[i]); }
  static EXTRAP_HD void insert(float stored, int i, uint32_t* words) { words[i] = Ops<float>::bits(stored); }
  static EXTRAP_HD void insert_pair(float low, float high, int i, uint32_t* words) {
    insert(low, i, words);
    insert(high, i + 1, words);
  }
};

template <>
struct Storage<double> {
  using Value = double;
  static EXTRAP_HD double unpack(double stored) { return stored; }
  static EXTRAP_HD double pack(double value) { return value; }
  static EXTRAP_HD double extract(const uint32_t* words, int i) {
    double value;
    memcpy(&value, words + 2 * i, sizeof value);
    return value;
  }
  static EXTRAP_HD void insert(double stored, int i, uint32_t* words) { memcpy(words + 2 * i, &stored, sizeof stored); }
  static EXTRAP_HD void insert_pair(double low, double high, int i, uint32_t* words) {
    insert(low, i, words);
    insert(high, i + 1, words);
  }
};

// Formats of 16 bits: two in a word. The device converts in hardware, to nearest even as the host does in integers.
template <class T>
struct NarrowStorage {
  using Value = float;
  static EXTRAP_HD T extract(const uint32_t* words, int i) {
    return {static_cast<uint16_t>(words[i / 2] >> (16 * (i % 2)))};
  }
  static EXTRAP_HD void insert(T stored, int i, uint32_t* words) {
    const uint32_t half = static_cast<uint32_t>(stored.bits) << (16 * (i % 2));
    words[i / 2] = i % 2 == 0 ? half : words[i / 2] | half;
  }
  // i is even.
  static EXTRAP_HD void insert_pair(float low, float high, int i, uint32_t* words) {
#if defined(__CUDA_ARCH__)
    const auto pair = Storage<T>::round_pair(low, high);
    memcpy(words + i / 2, &pair, sizeof pair);
#else
    insert(Storage<T>::pack(low), i, words);
    insert(Storage<T>::pack(high), i + 1, words);
#endif
  }
};

template <>
struct Storage<BFloat16> : NarrowStorage<BFloat16> {
  static EXTRAP_HD float unpack(BFloat16 stored) {
    return Ops<float>::from_bits(static_cast<uint32_t>(stored.bits) << 16);
  }
  static EXTRAP_HD BFloat16 pack(float value) {
#if defined(__CUDA_ARCH__)
    return {__bfloat16_as_ushort(__float2bfloat16_rn(value))};
#else
    return to_bfloat16(value);
#endif
  }
#if defined(__CUDA_ARCH__)
  static EXTRAP_HD __nv_bfloat162 round_pair(float low, float high) { return __floats2bfloat162_rn(low, high); }
#endif
};

template <>
struct Storage<Float16> : NarrowStorage<Float16> {
  static EXTRAP_HD float unpack(Float16 stored) {
#if defined(__CUDA_ARCH__)
    return __half2float(__ushort_as_half(stored.bits));
#else
    return to_float(stored);
#endif
  }
  static EXTRAP_HD Float16 pack(float value) {
#if defined(__CUDA_ARCH__)
    return {__half_as_ushort(__float2half_rn(value))};
#else
    return to_float16(value);
#endif
  }
#if defined(__CUDA_ARCH__)
  static EXTRAP_HD __half2 round_pair(float low, float high) { return __floats2half2_rn(low, high); }
#endif
};

// kCount consecutive numbers.
template <class T, int kCount>
struct Packed {
  static constexpr int kInPacket = static_cast<int>(sizeof(Packet) / sizeof(T));
  static_assert(kCount % kInPacket == 0);
  uint32_t words[kCount * sizeof(T) / 4];

  EXTRAP_HD typename Storage<T>::Value operator[](int k) const {
    return Storage<T>::unpack(Storage<T>::extract(words, k));
  }

  EXTRAP_HD void set(int k, typename Storage<T>::Value value) { Storage<T>::insert(Storage<T>::pack(value), k, words); }

  // k is even.
  EXTRAP_HD void set_pair(int k, typename Storage<T>::Value low, typename Storage<T>::Value high) {
    Storage<T>::insert_pair(low, high, k, words);
  }

  // In packets if `vector`, else one by one as far as `count` goes, then zeros.
  EXTRAP_HD void load(const T* from, bool vector, int count) {
    if (vector) {
      EXTRAP_UNROLL
      for (int p = 0; p < kCount / kInPacket; ++p) {
        const Packet packet = cuda::load(reinterpret_cast<const Packet*>(from) + p);
        EXTRAP_UNROLL
        for (int w = 0; w < 4; ++w) words[4 * p + w] = packet.word[w];
      }
    } else {
      EXTRAP_UNROLL
      for (int k = 0; k < kCount; ++k) Storage<T>::insert(k < count ? cuda::load(from + k) : T{}, k, words);
    }
  }

  template <Reuse kReuse>
  EXTRAP_HD void store(T* to, bool vector, int count) const {
    if (vector) {
      EXTRAP_UNROLL
      for (int p = 0; p < kCount / kInPacket; ++p)
        cuda::store<kReuse>(reinterpret_cast<Packet*>(to) + p,
                            Packet{{words[4 * p], words[4 * p + 1], words[4 * p + 2], words[4 * p + 3]}});
    } else {
      EXTRAP_UNROLL
      for (int k = 0; k < kCount; ++k)
        if (k < count) cuda::store<kReuse>(to + k, Storage<T>::extract(words, k));
    }
  }
};

}  // namespace extrap::cuda
