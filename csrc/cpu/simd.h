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
typedef int8_t SignedByteVector __attribute__((vector_size(kVectorBytes / 4)));
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

// Bytes as 16-bit numbers.
EXTRAP_HD HalfWordVector sign_extend(ByteVector bytes) {
#if defined(__AVX512F__)
  return reinterpret_cast<HalfWordVector>(_mm256_cvtepi8_epi16(reinterpret_cast<__m128i>(bytes)));
#elif defined(__AVX2__)
  return reinterpret_cast<HalfWordVector>(_mm_cvtepi8_epi16(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(&bytes))));
#else
  return __builtin_convertvector(__builtin_convertvector(bytes, SignedByteVector), HalfWordVector);
#endif
}

EXTRAP_HD HalfWordVector zero_extend(ByteVector bytes) {
#if defined(__AVX512F__)
  return reinterpret_cast<HalfWordVector>(_mm256_cvtepu8_epi16(reinterpret_cast<__m128i>(bytes)));
#elif defined(__AVX2__)
  return reinterpret_cast<HalfWordVector>(_mm_cvtepu8_epi16(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(&bytes))));
#else
  return __builtin_convertvector(bytes, HalfWordVector);
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

// A word for each 16 of kBlock elements. Where these are fewer than 64, lanes are left over.
typedef uint32_t Words4 __attribute__((vector_size(16)));

// The largest of each 16 of kBlock words.
#if defined(__AVX512F__)
EXTRAP_HD Words4 largest_of_each(const WordVector (&v)[4]) {
  const auto wide = [&](int i) { return reinterpret_cast<__m512i>(v[i]); };
  const auto max = [](__m512i a, __m512i b) { return _mm512_max_epu32(a, b); };
  const __m512i low = max(_mm512_unpacklo_epi32(wide(0), wide(1)), _mm512_unpackhi_epi32(wide(0), wide(1)));
  const __m512i high = max(_mm512_unpacklo_epi32(wide(2), wide(3)), _mm512_unpackhi_epi32(wide(2), wide(3)));
  const __m512i all = max(_mm512_unpacklo_epi64(low, high), _mm512_unpackhi_epi64(low, high));
  const __m256i half = _mm256_max_epu32(_mm512_castsi512_si256(all), _mm512_extracti64x4_epi64(all, 1));
  return reinterpret_cast<Words4>(_mm_max_epu32(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1)));
}
#elif defined(__AVX2__)
EXTRAP_HD Words4 largest_of_each(const WordVector (&v)[2]) {
  const __m256i a = reinterpret_cast<__m256i>(v[0]), b = reinterpret_cast<__m256i>(v[1]);
  const __m256i both = _mm256_max_epu32(_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b));
  const __m128i half = _mm_max_epu32(_mm256_castsi256_si128(both), _mm256_extracti128_si256(both, 1));
  return reinterpret_cast<Words4>(_mm_max_epu32(half, _mm_shuffle_epi32(half, 0xee)));
}
#else
EXTRAP_HD Words4 largest_of_each(const WordVector (&v)[1]) {
  uint32_t largest = v[0][0];
  for (int i = 1; i < kFloats; ++i) largest = v[0][i] > largest ? v[0][i] : largest;
  return Words4{} + largest;
}
#endif

// Lane i of `words`, in all lanes.
EXTRAP_HD WordVector broadcast(Words4 words, int i) {
#if defined(__AVX512F__)
  return reinterpret_cast<WordVector>(
      _mm512_permutexvar_epi32(_mm512_set1_epi32(i), _mm512_castsi128_si512(reinterpret_cast<__m128i>(words))));
#else
  return WordVector{} + words[i];
#endif
}

EXTRAP_HD bool any_equal(Words4 words, uint32_t to) {
#if defined(__SSE2__)
  return _mm_movemask_epi8(reinterpret_cast<__m128i>(words == to)) != 0;
#else
  return words[0] == to || words[1] == to || words[2] == to || words[3] == to;
#endif
}

// Of words below 256: those that are in use.
EXTRAP_HD void store_lower_bytes(uint8_t* to, Words4 words) {
#if defined(__AVX512F__)
  const int bytes = _mm_cvtsi128_si32(_mm_cvtepi32_epi8(reinterpret_cast<__m128i>(words)));
  memcpy(to, &bytes, sizeof bytes);
#else
  for (int i = 0; i < kBlock / 16; ++i) to[i] = static_cast<uint8_t>(words[i]);
#endif
}

// The same for kBlock words.
EXTRAP_HD void store_lower_bytes(uint8_t* to, const WordVector (&words)[4]) {
#if defined(__AVX512F__)
  const auto wide = [&](int i) { return reinterpret_cast<__m512i>(words[i]); };
  const __m512i mixed =
      _mm512_packus_epi16(_mm512_packus_epi32(wide(0), wide(1)), _mm512_packus_epi32(wide(2), wide(3)));
  const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  _mm512_storeu_si512(to, _mm512_permutexvar_epi32(order, mixed));
#elif defined(__AVX2__)
  const auto wide = [&](int i) { return reinterpret_cast<__m256i>(words[i]); };
  const __m256i mixed =
      _mm256_packus_epi16(_mm256_packus_epi32(wide(0), wide(1)), _mm256_packus_epi32(wide(2), wide(3)));
  const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm256_permutevar8x32_epi32(mixed, order));
#else
  for (int i = 0; i < kBlock; ++i) to[i] = static_cast<uint8_t>(words[i / kFloats][i % kFloats]);
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
