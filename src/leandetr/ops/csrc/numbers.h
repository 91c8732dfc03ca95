// Storage types and their conversion to the type that is computed in.
#pragma once
#include <stdint.h>
#include <string.h>

#include "abi.h"

// Before a loop: its rounds do not touch each other's numbers.
#if defined(__clang__)
#define INDEPENDENT _Pragma("clang loop vectorize(assume_safety)")
#else
#define INDEPENDENT _Pragma("GCC ivdep")
#endif

// Before a function that has to become part of the one that calls it: its vectors stay in
// registers.
#define INLINED inline __attribute__((always_inline))
#define INLINED_HERE __attribute__((always_inline))  // after the parameters of a lambda

// Before a loop of a few rounds whose results stay in registers.
#if defined(__clang__)
#define UNROLLED _Pragma("clang loop unroll(full)")
#else
#define UNROLLED _Pragma("GCC unroll 16")
#endif

namespace LEANDETR_VARIANT {

struct bfloat {
  uint16_t bits;
};
struct bfloats {  // see lanes.h
  uint32_t both;
};
struct half {
  uint16_t bits;
};

// What sums are kept in: single precision for everything but double.
template <class S> struct Computed {
  typedef float type;
};
template <> struct Computed<double> {
  typedef double type;
};

template <bool FIRST, class A, class B> struct Choice {
  typedef A type;
};
template <class A, class B> struct Choice<false, A, B> {
  typedef B type;
};

// The number by which the interface calls a type.
template <class C> constexpr int64_t TYPE_OF = sizeof(C) == 8   ? FLOAT64
                                               : sizeof(C) == 4 ? FLOAT32
                                                                : BFLOAT16;

template <class To, class From> inline To same_bits(From from) {
  static_assert(sizeof(To) == sizeof(From), "sizes differ");
  To to;
  memcpy(&to, &from, sizeof to);
  return to;
}

inline float widen(float x) { return x; }
inline double widen(double x) { return x; }
inline float widen(bfloat x) { return same_bits<float>(uint32_t(x.bits) << 16); }
inline float widen(half x) {
  // The exponent is moved by a product, which is right for subnormal numbers, too.
  float small = same_bits<float>(uint32_t(x.bits & 0x7fff) << 13) * 0x1p112f;
  uint32_t bits = same_bits<uint32_t>(small);
  if ((x.bits & 0x7c00) == 0x7c00) bits |= 0x7f800000;
  return same_bits<float>(bits | uint32_t(x.bits & 0x8000) << 16);
}

template <class C> inline void narrow(C x, float& to) { to = float(x); }
template <class C> inline void narrow(C x, double& to) { to = x; }
template <class C> inline void narrow(C x, bfloat& to) {
  uint32_t bits = same_bits<uint32_t>(float(x));
  bool number = (bits & 0x7fffffff) <= 0x7f800000;
  bits += number ? 0x7fff + (bits >> 16 & 1) : 0;  // to the nearest, ties to even
  to.bits = uint16_t(number ? bits >> 16 : bits >> 16 | 0x40);
}
template <class C> inline void narrow(C x, half& to) {
  uint32_t bits = same_bits<uint32_t>(float(x));
  uint32_t sign = bits >> 16 & 0x8000, size = bits & 0x7fffffff;
  if (size > 0x7f800000) {
    to.bits = uint16_t(sign | 0x7e00);
  } else if (size >= 0x477ff000) {  // rounds to more than the largest
    to.bits = uint16_t(sign | 0x7c00);
  } else if (size < 0x38800000) {  // subnormal: adding 0.5 leaves the rounded bits at the end
    to.bits = uint16_t(sign | (same_bits<uint32_t>(same_bits<float>(size) + 0.5f) - 0x3f000000));
  } else {
    size += 0xfff + (size >> 13 & 1);
    to.bits = uint16_t(sign | (size - 0x38000000) >> 13);
  }
}

// `count` numbers of an array of any type, from number `first` on.
template <class S, class C> inline void read_as(C* to, const void* from, int64_t first, int count) {
  const S* source = static_cast<const S*>(from) + first;
  INDEPENDENT
  for (int i = 0; i < count; ++i) to[i] = C(widen(source[i]));
}
template <class C>
__attribute__((noinline)) void read(C* to, const Array& from, int64_t first, int count) {
  switch (from.type) {
    case FLOAT32: return read_as<float>(to, from.data, first, count);
    case FLOAT64: return read_as<double>(to, from.data, first, count);
    case BFLOAT16: return read_as<bfloat>(to, from.data, first, count);
    default: return read_as<half>(to, from.data, first, count);
  }
}

template <class S, class C>
inline void write_as(void* to, int64_t first, const C* from, int count) {
  S* target = static_cast<S*>(to) + first;
  INDEPENDENT
  for (int i = 0; i < count; ++i) narrow(from[i], target[i]);
}
template <class C>
__attribute__((noinline)) void write(const Array& to, int64_t first, const C* from, int count) {
  switch (to.type) {
    case FLOAT32: return write_as<float>(to.data, first, from, count);
    case FLOAT64: return write_as<double>(to.data, first, from, count);
    case BFLOAT16: return write_as<bfloat>(to.data, first, from, count);
    default: return write_as<half>(to.data, first, from, count);
  }
}

// Brings numbers of an array near, to be read (0) or written (1). Inlined, because GCC takes a
// function that only does this for one that does nothing.
template <int WRITES> INLINED void fetch(const Array& array, int64_t first, int64_t count) {
  const int64_t bytes = array.type == FLOAT64 ? 8 : array.type == FLOAT32 ? 4 : 2;
  const char* from = static_cast<const char*>(array.data) + first * bytes;
  for (int64_t b = 0; b < count * bytes; b += 64) __builtin_prefetch(from + b, WRITES);
}

}  // namespace LEANDETR_VARIANT
