// Vectors of the width this variant was compiled for, in the compiler's own vector types.
#pragma once
#include <math.h>

#include <utility>

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
  typedef uint16_t U __attribute__((vector_size(BYTES / 2), aligned(2), may_alias));
  const U bits = *reinterpret_cast<const U*>(row + i * LANES<float>);
  return same_bits<Vec<float>>(__builtin_convertvector(bits, Wide<float>::U) << 16);
}
// Rows of bfloat16 may be stored two by two: in a word, number k of a vector and number k of the
// next, so that both vectors come from one load.
inline Vec<float> load(const bfloats* row, int i) {
  typedef Wide<float>::U U;
  const U both = load(&row->both + i / 2 * LANES<float>, 0);
  return same_bits<Vec<float>>(i % 2 ? both & 0xffff0000u : both << 16);
}

// What rows are packed as, and how many numbers each of it holds.
template <class S> struct Packed {
  typedef S type;
  static constexpr int HOLDS = 1;
};
template <> struct Packed<bfloat> {
  typedef bfloats type;
  static constexpr int HOLDS = 2;
};

template <class T> inline void save(T* row, int i, typename Tight<T>::type x) {
  *reinterpret_cast<typename Loose<T>::type*>(row + i * (BYTES / int(sizeof(T)))) = x;
}

// A shuffle by constant numbers of lanes: those of `a`, and then those of `b`.
template <class C, class Number, int... LANE>
inline Vec<C> pick(Vec<C> a, Vec<C> b, std::integer_sequence<int, LANE...>) {
#if defined(__clang__)
  return __builtin_shufflevector(a, b, Number::of(LANE)...);
#else
  typedef typename Wide<C>::Whole I;
  return __builtin_shuffle(a, b, typename Wide<C>::I{I(Number::of(LANE))...});
#endif
}
template <class C, class Number> inline Vec<C> pick(Vec<C> a, Vec<C> b) {
  return pick<C, Number>(a, b, std::make_integer_sequence<int, LANES<C>>());
}

// Lanes of `a` and then of `b` that have an even (odd) number.
template <int ODD> struct Alternate {
  static constexpr int of(int i) { return 2 * i + ODD; }
};
template <class C, int ODD> inline Vec<C> alternate(Vec<C> a, Vec<C> b) {
  return pick<C, Alternate<ODD>>(a, b);
}

// The first (second) half of a[0] b[0] a[1] b[1] ...
template <int N, int SECOND> struct Interleave {
  static constexpr int of(int i) { return i / 2 + SECOND * N / 2 + i % 2 * N; }
};
template <class C, int SECOND> inline Vec<C> interleave(Vec<C> a, Vec<C> b) {
  return pick<C, Interleave<LANES<C>, SECOND>>(a, b);
}

// Lanes change places with those D away.
template <int D> struct Swap {
  static constexpr int of(int i) { return i ^ D; }
};
template <class C, int D> inline Vec<C> swap_lanes(Vec<C> x) { return pick<C, Swap<D>>(x, x); }

// Vectors are summed over their lanes many at a time, in steps that are one instruction each:
// first inside the parts of 16 bytes that a vector is made of, then over parts.
template <class C> constexpr int PART = 16 / sizeof(C);

// In each part of P lanes: every second lane of `a`, then of `b`.
template <int N, int P, int ODD> struct ThinOut {
  static constexpr int of(int i) { return i / P * P + i % P * 2 % P + ODD + i % P * 2 / P * N; }
};
// Every second part of `a`, then of `b`.
template <int P, int ODD> struct ThinOutParts {
  static constexpr int of(int i) { return (i / P * 2 + ODD) * P + i % P; }
};

// Sums over the lanes of a part, of as many vectors as a part has lanes.
template <class C, int COUNT = PART<C>> inline Vec<C> sum_in_parts(const Vec<C>* all) {
  constexpr int N = LANES<C>, P = PART<C>;
  if constexpr (COUNT == 1) {
    return all[0];
  } else {
    const Vec<C> a = sum_in_parts<C, COUNT / 2>(all),
                 b = sum_in_parts<C, COUNT / 2>(all + COUNT / 2);
    return pick<C, ThinOut<N, P, 0>>(a, b) + pick<C, ThinOut<N, P, 1>>(a, b);
  }
}

// Sums over parts, of as many vectors as there are parts.
template <class C, int COUNT = LANES<C> / PART<C>> inline Vec<C> sum_parts(const Vec<C>* all) {
  constexpr int P = PART<C>;
  if constexpr (COUNT == 1) {
    return all[0];
  } else {
    const Vec<C> a = sum_parts<C, COUNT / 2>(all), b = sum_parts<C, COUNT / 2>(all + COUNT / 2);
    return pick<C, ThinOutParts<P, 0>>(a, b) + pick<C, ThinOutParts<P, 1>>(a, b);
  }
}

// The sum of all lanes, in every lane.
template <class C, int D = LANES<C> / 2> inline Vec<C> sum(Vec<C> x) {
  if constexpr (D == 0)
    return x;
  else
    return sum<C, D / 2>(x + swap_lanes<C, D>(x));
}

// The largest lane, in every lane.
template <class C, int D = LANES<C> / 2> inline Vec<C> largest(Vec<C> x) {
  if constexpr (D == 0) {
    return x;
  } else {
    const Vec<C> other = swap_lanes<C, D>(x);
    return largest<C, D / 2>(x > other ? x : other);
  }
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
