// Rows of tokens: where they lie in an array, or packed side by side for one head.
#pragma once
#include "bench.h"

namespace LEANDETR_VARIANT {

// Rows to read or to add to. Those of a packed head are STEP apart (0: `step`) and follow one that
// stands for tokens outside the map.
template <class T, int STEP, bool PACKED> struct Rows {
  T *first, *outside;
  int64_t step;
  INLINED T* at(int64_t token) const {
    if constexpr (PACKED) return first + token * (STEP ? STEP : step);
    return token < 0 ? outside : first + token * step;
  }
  // Rows of a head, counted from that of the first row.
  Rows of(int64_t head, int64_t width) const {
    return {PACKED ? first : first + head * width, outside, step};
  }
};

// Packs `width` numbers of an array, from number `first` on, into a row of `row`.
template <int W, class S>
inline void pack(S* to, const Array& from, int64_t first, int width, int row) {
  if (width == W && from.type == TYPE_OF<S>) {
    memcpy(to, static_cast<const S*>(from.data) + first, W * sizeof(S));
  } else {
    read(to, from, first, width);
    memset(to + width, 0, (row - width) * sizeof(S));
  }
}
template <int W> inline void pack(bfloats* to, const Array& from, int64_t first, int, int) {
  constexpr int N = LANES<float>;
  const bfloat* row = static_cast<const bfloat*>(from.data) + first;
  for (int i = 0; i < W; i += 2 * N)
    for (int lane = 0; lane < N; ++lane)
      to[i / 2 + lane].both = row[i + lane].bits | uint32_t(row[i + lane + N].bits) << 16;
}

// Rows of one array. A packed row is followed by its gradient, when there is one, so that they are
// found together and never lie a multiple of 4096 bytes apart, which would slow down the processor.
template <class S, int W, bool PACKED, bool BACKWARD> struct RowsOf {
  typedef typename Computed<S>::type C;
  typedef typename Packed<S>::type P;
  static constexpr int BYTES_A_ROW = W / Packed<S>::HOLDS * int(sizeof(P));
  static constexpr int STEP = BYTES_A_ROW + (BACKWARD ? W * int(sizeof(C)) : 0);
  typedef Rows<const P, STEP / int(sizeof(P)), true> Close;
  typedef Rows<const S, 0, false> Apart;
  typedef typename Choice<PACKED, Close, Apart>::type Read;
  typedef Rows<C, STEP / int(sizeof(C)), PACKED> Sums;

  // Bytes of a row and from row to row.
  static int64_t row_bytes(const Needs& needs) { return needs.row / Packed<S>::HOLDS * sizeof(P); }
  static int64_t step_bytes(const Needs& needs) {
    return row_bytes(needs) + (BACKWARD ? needs.row * sizeof(C) : 0);
  }

  static Read read(const Bench<S>& bench, const Array& from, const Span& span, char* packed) {
    const Call& call = bench.call;
    const int64_t stride = call.heads * call.width;
    int64_t number = span.image * call.tokens * stride + span.head * call.width;
    if constexpr (!PACKED) {
      return {static_cast<const S*>(from.data) + number, bench.zeros, stride};
    } else {
      const int64_t row = row_bytes(bench.needs), step = step_bytes(bench.needs);
      memset(packed, 0, step);
      char* to = packed + step;
      for (int64_t t = 0; t < call.tokens; ++t, to += step, number += stride) {
        fetch<0>(from, number + 16 * stride, call.width);
        pack<W>(reinterpret_cast<P*>(to), from, number, int(call.width), bench.needs.row);
        if (BACKWARD) memset(to + row, 0, W ? W * sizeof(C) : step - row);
      }
      const P* first = reinterpret_cast<const P*>(packed + step);
      return {first, first, step / int64_t(sizeof(P))};
    }
  }

  // Where gradients are summed: zeros at first. Packed ones lie between the rows that were read.
  static Sums sums(const Bench<S>& bench, const Array& to, const Span& span, char* packed) {
    const Call& call = bench.call;
    if constexpr (PACKED) {
      const int64_t step = step_bytes(bench.needs);
      C* first = reinterpret_cast<C*>(packed + step + row_bytes(bench.needs));
      return {first, first, step / int64_t(sizeof(C))};
    }
    const int64_t stride = call.heads * call.width;
    C* base = static_cast<C*>(to.data) + span.image * call.tokens * stride + span.head * call.width;
    const int64_t part = span.heads * call.width, steps = part == stride ? 1 : call.tokens;
    for (int64_t t = 0; t < steps; ++t)
      memset(base + t * stride, 0, part * call.tokens / steps * sizeof(C));
    return {base, bench.waste, stride};
  }

  // Gradients that were summed in packed rows go where they belong.
  static void deliver(const Bench<S>& bench, const Array& to, const Span& span, const Sums& sums) {
    if constexpr (PACKED) {
      const Call& call = bench.call;
      const bool plain = to.type == TYPE_OF<C> && call.width == W;
      int64_t first = (span.image * call.tokens * call.heads + span.head) * call.width;
      for (int64_t t = 0; t < call.tokens; ++t, first += call.heads * call.width)
        if (plain)
          memcpy(static_cast<C*>(to.data) + first, sums.at(t), W * sizeof(C));
        else
          write(to, first, sums.at(t), int(call.width));
    }
  }
};

}  // namespace LEANDETR_VARIANT
