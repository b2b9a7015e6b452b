// Vectors of the instruction set that this file is compiled for, as the compiler's vector extension: the operators of
// the language work on them, so that csrc/core is written once.
#pragma once

#include "core/ops.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace extrap {
inline namespace EXTRAP_ISA {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
#elif defined(__AVX2__)
constexpr int kVectorBytes = 32;
#else
constexpr int kVectorBytes = 16;
#endif

constexpr int kFloats = kVectorBytes / 4;

// Elements that the kernels step at a time: four vectors of floats.
constexpr int kBlock = 4 * kFloats;

typedef float FloatVector __attribute__((vector_size(kVectorBytes)));
typedef double DoubleVector __attribute__((vector_size(kVectorBytes)));
typedef uint32_t WordVector __attribute__((vector_size(kVectorBytes)));
typedef int32_t IntVector __attribute__((vector_size(kVectorBytes)));
typedef uint16_t HalfWordVector __attribute__((vector_size(kVectorBytes / 2)));
typedef uint8_t ByteVector __attribute__((vector_size(kVectorBytes / 4)));
typedef float HalfFloatVector __attribute__((vector_size(kVectorBytes / 2)));

template <class A>
struct VectorOf;
template <>
struct VectorOf<float> {
  using type = FloatVector;
};
template <>
struct VectorOf<double> {
  using type = DoubleVector;
};

// Interleave the lower or upper two floats of each 128-bit part: a0 b0 a1 b1, or a2 b2 a3 b3.
EXTRAP_HD FloatVector interleave_low(FloatVector a, FloatVector b) {
#if defined(__AVX512F__)
  return _mm512_unpacklo_ps(a, b);
#elif defined(__AVX2__)
  return _mm256_unpacklo_ps(a, b);
#elif defined(__SSE2__)
  return _mm_unpacklo_ps(a, b);
#else
  return FloatVector{a[0], b[0], a[1], b[1]};
#endif
}

EXTRAP_HD FloatVector interleave_high(FloatVector a, FloatVector b) {
#if defined(__AVX512F__)
  return _mm512_unpackhi_ps(a, b);
#elif defined(__AVX2__)
  return _mm256_unpackhi_ps(a, b);
#elif defined(__SSE2__)
  return _mm_unpackhi_ps(a, b);
#else
  return FloatVector{a[2], b[2], a[3], b[3]};
#endif
}

// GCC 12 takes the bytes one by one.
EXTRAP_HD WordVector widen_bytes(ByteVector bytes) {
#if defined(__AVX512F__)
  return reinterpret_cast<WordVector>(_mm512_cvtepu8_epi32(reinterpret_cast<__m128i>(bytes)));
#elif defined(__AVX2__)
  return reinterpret_cast<WordVector>(_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(&bytes))));
#else
  return __builtin_convertvector(bytes, WordVector);
#endif
}

// Of words below 256.
EXTRAP_HD ByteVector narrow_to_bytes(WordVector words) {
#if defined(__AVX512F__)
  return reinterpret_cast<ByteVector>(_mm512_cvtepi32_epi8(reinterpret_cast<__m512i>(words)));
#elif defined(__AVX2__)
  const __m256i wide = reinterpret_cast<__m256i>(words);
  const __m128i halves = _mm_packus_epi32(_mm256_castsi256_si128(wide), _mm256_extracti128_si256(wide, 1));
  ByteVector bytes;
  _mm_storel_epi64(reinterpret_cast<__m128i*>(&bytes), _mm_packus_epi16(halves, halves));
  return bytes;
#else
  return __builtin_convertvector(words, ByteVector);
#endif
}

EXTRAP_HD WordVector larger(WordVector a, WordVector b) { return a > b ? a : b; }

EXTRAP_HD uint32_t largest_lane(WordVector words) {
#if defined(__AVX512F__)
  return _mm512_reduce_max_epu32(reinterpret_cast<__m512i>(words));
#else
  uint32_t largest = words[0];
  for (int i = 1; i < kFloats; ++i) largest = words[i] > largest ? words[i] : largest;
  return largest;
#endif
}

template <class T>
EXTRAP_HD T load_bytes(const void* from) {
  T v;
  memcpy(&v, from, sizeof v);
  return v;
}

// Past the caches: for what is written and not read again soon. `to` is aligned to the size of T.
template <class T>
EXTRAP_HD void store_streaming(void* to, T v) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 64) return _mm512_stream_si512(static_cast<__m512i*>(to), load_bytes<__m512i>(&v));
#endif
#if defined(__AVX2__)
  if constexpr (sizeof(T) == 32) return _mm256_stream_si256(static_cast<__m256i*>(to), load_bytes<__m256i>(&v));
#endif
#if defined(__SSE2__)
  if constexpr (sizeof(T) == 16) return _mm_stream_si128(static_cast<__m128i*>(to), load_bytes<__m128i>(&v));
  if constexpr (sizeof(T) == 8) return _mm_stream_si64(static_cast<long long*>(to), load_bytes<long long>(&v));
#endif
  memcpy(to, &v, sizeof v);
}

EXTRAP_HD void finish_streaming() {
#if defined(__SSE2__)
  _mm_sfence();
#endif
}

template <>
struct Ops<FloatVector> {
  using Word = WordVector;
  using Half = HalfWordVector;
  // The words fit into halves. GCC 12 makes up to four instructions more of the conversions.
#if defined(__AVX512F__)
  static EXTRAP_HD Word widen(Half h) {
    return reinterpret_cast<Word>(_mm512_cvtepu16_epi32(reinterpret_cast<__m256i>(h)));
  }
  static EXTRAP_HD Half narrow(Word w) {
    return reinterpret_cast<Half>(_mm512_cvtepi32_epi16(reinterpret_cast<__m512i>(w)));
  }
#elif defined(__AVX2__)
  static EXTRAP_HD Word widen(Half h) {
    return reinterpret_cast<Word>(_mm256_cvtepu16_epi32(reinterpret_cast<__m128i>(h)));
  }
  static EXTRAP_HD Half narrow(Word w) {
    const __m256i words = reinterpret_cast<__m256i>(w);
    return reinterpret_cast<Half>(_mm_packus_epi32(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1)));
  }
#else
  static EXTRAP_HD Word widen(Half h) { return __builtin_convertvector(h, Word); }
  static EXTRAP_HD Half narrow(Word w) { return __builtin_convertvector(w, Half); }
#endif
  static constexpr bool kHasBFloat16 = false;
#if defined(__AVX512F__)
  static constexpr bool kHasFloat16 = true;
  static EXTRAP_HD FloatVector from_float16(Half h) { return _mm512_cvtph_ps(reinterpret_cast<__m256i>(h)); }
  static EXTRAP_HD Half to_float16(FloatVector v) {
    return reinterpret_cast<Half>(_mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
  }
#elif defined(__F16C__)
  static constexpr bool kHasFloat16 = true;
  static EXTRAP_HD FloatVector from_float16(Half h) { return _mm256_cvtph_ps(reinterpret_cast<__m128i>(h)); }
  static EXTRAP_HD Half to_float16(FloatVector v) {
    return reinterpret_cast<Half>(_mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
  }
#else
  static constexpr bool kHasFloat16 = false;
#endif
  static EXTRAP_HD FloatVector sqrt(FloatVector v) {
#if defined(__AVX512F__)
    return _mm512_sqrt_ps(v);
#elif defined(__AVX2__)
    return _mm256_sqrt_ps(v);
#elif defined(__SSE2__)
    return _mm_sqrt_ps(v);
#else
    for (int i = 0; i < kFloats; ++i) v[i] = ::sqrtf(v[i]);
    return v;
#endif
  }
  static EXTRAP_HD FloatVector multiply_add(FloatVector a, FloatVector b, FloatVector c) {
#if defined(__AVX512F__)
    return _mm512_fmadd_ps(a, b, c);
#elif defined(__FMA__)
    return _mm256_fmadd_ps(a, b, c);
#else
    typedef double Wide __attribute__((vector_size(2 * kVectorBytes)));
    return __builtin_convertvector(
        __builtin_convertvector(a, Wide) * __builtin_convertvector(b, Wide) + __builtin_convertvector(c, Wide),
        FloatVector);
#endif
  }
  // Below 2^31, where signed and unsigned agree: the signed conversion is the one that every instruction set has.
  static EXTRAP_HD FloatVector from_integer(Word w) {
    return __builtin_convertvector(reinterpret_cast<IntVector>(w), FloatVector);
  }
  static EXTRAP_HD Word bits(FloatVector v) { return reinterpret_cast<Word>(v); }
  static EXTRAP_HD FloatVector from_bits(Word w) { return reinterpret_cast<FloatVector>(w); }
};

template <>
struct Ops<DoubleVector> {
  static EXTRAP_HD DoubleVector sqrt(DoubleVector v) {
    for (int i = 0; i < kVectorBytes / 8; ++i) v[i] = ::sqrt(v[i]);
    return v;
  }
};

}  // namespace EXTRAP_ISA
}  // namespace extrap
