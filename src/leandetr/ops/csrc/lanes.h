// Vectors of the width this variant was compiled for, in the compiler's own vector types.
#pragma once
#include <math.h>

#include "numbers.h"

namespace LEANDETR_VARIANT {

#if defined(__AVX512F__)
constexpr int BYTES = 64;
#elif defined(__AVX2__)
constexpr int BYTES = 32;
#else
constexpr int BYTES = 16;
#endif

template <class C> struct Wide;
template <> struct Wide<float> {
  typedef int32_t Whole;
  typedef float V __attribute__((vector_size(BYTES)));
  typedef int32_t I __attribute__((vector_size(BYTES)));
  typedef uint32_t U __attribute__((vector_size(BYTES)));
};
template <> struct Wide<double> {
  typedef int64_t Whole;
  typedef double V __attribute__((vector_size(BYTES)));
  typedef int64_t I __attribute__((vector_size(BYTES)));
  typedef uint64_t U __attribute__((vector_size(BYTES)));
};
template <class C> using Vec = typename Wide<C>::V;
template <class C> constexpr int LANES = BYTES / sizeof(C);

template <class C> inline Vec<C> splat(C x) { return Vec<C>{} + x; }

// The same vector type, at any alignment.
template <class T> struct Loose {
  typedef T type __attribute__((vector_size(BYTES), aligned(alignof(T)), may_alias));
};
template <class T> struct Tight {
  typedef T type __attribute__((vector_size(BYTES)));
};

// Vector number `i` of a row.
template <class T> inline typename Tight<T>::type load(const T* row, int i) {
  return *reinterpret_cast<const typename Loose<T>::type*>(row + i * (BYTES / int(sizeof(T))));
}
inline Vec<float> load(const bfloat* row, int i) {
#if defined(__AVX512F__)
  const __m256i short_bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(row + i * 16));
  return (Vec<float>)_mm512_slli_epi32(_mm512_cvtepu16_epi32(short_bits), 16);
#elif defined(__AVX2__)
  const __m128i short_bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(row + i * 8));
  return (Vec<float>)_mm256_slli_epi32(_mm256_cvtepu16_epi32(short_bits), 16);
#else
  typedef uint16_t U __attribute__((vector_size(BYTES / 2), aligned(2), may_alias));
  typedef uint32_t W __attribute__((vector_size(BYTES)));
  U bits = *reinterpret_cast<const U*>(row + i * LANES<float>);
  return same_bits<Vec<float>>(__builtin_convertvector(bits, W) << 16);
#endif
}
inline Vec<float> load(const half* row, int i) {
  const half* from = row + i * LANES<float>;
#if defined(__AVX512F__)
  return (Vec<float>)_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
#elif defined(__F16C__)
  return (Vec<float>)_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
#else
  Vec<float> all;
  for (int j = 0; j < LANES<float>; ++j) all[j] = widen(from[j]);
  return all;
#endif
}

template <class T> inline void save(T* row, int i, typename Tight<T>::type x) {
  *reinterpret_cast<typename Loose<T>::type*>(row + i * (BYTES / int(sizeof(T)))) = x;
}

// Lanes of `a` and then of `b` that have an even (odd) number.
template <class C> inline Vec<C> alternate(Vec<C> a, Vec<C> b, int odd) {
  constexpr int N = LANES<C>;
#if defined(__clang__)
  Vec<C> mixed;
  for (int i = 0; i < N; ++i) mixed[i] = 2 * i < N ? a[2 * i + odd] : b[2 * i + odd - N];
  return mixed;
#else
  typename Wide<C>::I picked;
  for (int i = 0; i < N; ++i) picked[i] = 2 * i + odd;
  return __builtin_shuffle(a, b, picked);
#endif
}

// Sums of as many vectors as one has lanes, the sum of vector i in lane i.
template <class C, int N = LANES<C>> inline Vec<C> sums(const Vec<C>* all) {
  if constexpr (N == 1) {
    return all[0];
  } else {
    Vec<C> low = sums<C, N / 2>(all), high = sums<C, N / 2>(all + N / 2);
    return alternate<C>(low, high, 0) + alternate<C>(low, high, 1);
  }
}

template <class C> inline C sum(Vec<C> x) {
  for (int n = 1; n < LANES<C>; n *= 2) x = alternate<C>(x, x, 0) + alternate<C>(x, x, 1);
  return x[0];
}

template <class C> inline C largest(Vec<C> x) {
  for (int n = 1; n < LANES<C>; n *= 2) {
    Vec<C> even = alternate<C>(x, x, 0), odd = alternate<C>(x, x, 1);
    x = even > odd ? even : odd;
  }
  return x[0];
}

// e to the x for x <= 0; NaN stays NaN.
inline Vec<double> exponential(Vec<double> x) {
  for (int i = 0; i < LANES<double>; ++i) x[i] = exp(x[i]);
  return x;
}
inline Vec<float> exponential(Vec<float> x) {
  typedef Wide<float>::I I;
  const float magic = 0x1.8p23f;  // adding it rounds to a whole number, kept in the last bits
  Vec<float> bound = x < -87.0f ? splat(-87.0f) : x;
  Vec<float> shifted = bound * 1.44269504f + magic;
  Vec<float> whole = shifted - magic;
  Vec<float> r = bound - whole * 0.693359375f + whole * 2.12194440e-4f;
  Vec<float> p = splat(1.9875691500e-4f);  // Cephes' polynomial for |r| <= log(2) / 2
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  I power = (same_bits<I>(shifted) - same_bits<int32_t>(magic) + 127) << 23;
  Vec<float> result = p * same_bits<Vec<float>>(power);
  return x < -87.0f ? splat(0.0f) : result;
}

}  // namespace LEANDETR_VARIANT
