// What one thread works on: scratch memory, and one head's rows packed side by side.
#pragma once
#include <stdlib.h>

#include <initializer_list>

#include "geometry.h"

namespace LEANDETR_VARIANT {

// Hands out aligned pieces of one allocation; without memory it only counts.
struct Arena {
  char* memory;
  int64_t used;
  template <class T> T* take(int64_t count) {
    T* piece = memory ? reinterpret_cast<T*>(memory + used) : nullptr;
    used += (count * int64_t(sizeof(T)) + 63) / 64 * 64;
    return piece;
  }
};

// What a call needs, decided once.
struct Needs {
  bool packed, own_key, backward;
  int row;  // numbers of a packed row: the width, rounded up to one that is compiled
};

// Rows of one image and head: token t begins at first + t * stride, zeros at first + nowhere.
template <class S> struct Rows {
  const S* first;
  int64_t stride, nowhere;
};

// What does not depend on how rows are stored.
template <class C> struct Desk {
  const Call& call;
  const Needs needs;
  Samples<C> samples;
  Look<C> looks[2];                 // at the query at hand, and at the next
  C *query, *grad, *out;            // one row each
  C* mixed;                         // one row a sample
  C *logits, *pulls, *reference;    // per sample; per level
  Vec<C>*products, *more_products;  // per corner, before the sum over lanes
  C *dots[4], *more_dots[4];        // per corner
  Desk(const Call& call, const Needs& needs) : call(call), needs(needs) {}
};

template <class S> struct Bench : Desk<typename Computed<S>::type> {
  typedef typename Computed<S>::type C;
  typedef typename Wide<C>::Whole I;
  using Desk<C>::call;
  using Desk<C>::needs;

  S *values, *keys, *zeros;  // packed rows
  C *value_sums, *key_sums;  // their gradients

  Bench(const Call& call, const Needs& needs) : Desk<C>(call, needs) {
    Arena count{nullptr, 0};
    lay_out(count);
    Arena real{static_cast<char*>(aligned_alloc(64, count.used)), 0};
    memory_ = real.memory;
    if (!memory_) return;
    lay_out(real);
    const int64_t products = 4 * this->samples.padded * sizeof(Vec<C>);
    memset(zeros, 0, needs.row * sizeof(S));
    memset(this->query, 0, needs.row * sizeof(C));
    memset(this->grad, 0, needs.row * sizeof(C));
    memset(this->products, 0, products);
    memset(this->more_products, 0, products);
    tabulate();
  }
  ~Bench() { free(memory_); }
  Bench(const Bench&) = delete;
  bool ready() const { return memory_; }

  // One head's rows, packed when the call needs it.
  Rows<S> rows(const Array& from, int64_t image, int64_t head, S* packed) const {
    const int64_t stride = call.heads * call.width;
    const S* base = static_cast<const S*>(from.data) + image * call.tokens * stride + head * call.width;
    if (!needs.packed) {
      int64_t bytes = reinterpret_cast<intptr_t>(zeros) - reinterpret_cast<intptr_t>(base);
      return {base, stride, bytes / int64_t(sizeof(S))};
    }
    const int rest = needs.row - int(call.width);
    for (int64_t t = 0; t < call.tokens; ++t) {
      memcpy(packed + t * needs.row, base + t * stride, call.width * sizeof(S));
      if (rest) memset(packed + t * needs.row + call.width, 0, rest * sizeof(S));
    }
    memset(packed + call.tokens * needs.row, 0, needs.row * sizeof(S));
    return {packed, needs.row, call.tokens * needs.row};
  }

  // Where one head's gradients are summed: zeros at first.
  C* sums(const Array& to, int64_t image, int64_t head, C* packed) const {
    if (needs.packed) {
      memset(packed, 0, call.tokens * needs.row * sizeof(C));
      return packed;
    }
    return static_cast<C*>(to.data) + (image * call.tokens * call.heads + head) * call.width;
  }

  // Gradients that were summed in packed rows go where they belong.
  void unpack(const Array& to, int64_t image, int64_t head, const C* packed) const {
    if (!needs.packed) return;
    int64_t first = (image * call.tokens * call.heads + head) * call.width;
    for (int64_t t = 0; t < call.tokens; ++t, first += call.heads * call.width)
      write(to, first, packed + t * needs.row, int(call.width));
  }

 private:
  char* memory_ = nullptr;

  void lay_out(Arena& arena) {
    Samples<C>& samples = this->samples;
    const int count = int(call.levels * call.points);
    const int padded = (count + LANES<C> - 1) / LANES<C> * LANES<C>;
    samples.count = count;
    samples.padded = padded;
    for (C** p : {&samples.wide, &samples.high, &this->logits, &this->pulls, &this->dots[0],
                  &this->dots[1], &this->dots[2], &this->dots[3], &this->more_dots[0],
                  &this->more_dots[1], &this->more_dots[2], &this->more_dots[3]})
      *p = arena.take<C>(padded);
    for (I** p : {&samples.width, &samples.height, &samples.start, &samples.level}) *p = arena.take<I>(padded);
    samples.own = arena.take<int32_t>(padded);
    for (Look<C>& look : this->looks) lay_out(look, arena, padded);
    this->reference = arena.take<C>(call.levels * 4 + 2 * LANES<C>);
    for (C** p : {&this->query, &this->grad, &this->out}) *p = arena.take<C>(needs.row);
    this->mixed = arena.take<C>(int64_t(padded) * needs.row);
    zeros = arena.take<S>(needs.row);
    this->products = arena.take<Vec<C>>(4 * padded);
    this->more_products = arena.take<Vec<C>>(4 * padded);
    const int64_t all = needs.packed ? (call.tokens + 1) * needs.row : 0;
    values = arena.take<S>(all);
    keys = arena.take<S>(needs.own_key ? all : 0);
    value_sums = arena.take<C>(needs.backward ? all : 0);
    key_sums = arena.take<C>(needs.backward && needs.own_key ? all : 0);
  }

  static void lay_out(Look<C>& look, Arena& arena, int padded) {
    for (C** p : {&look.dx, &look.dy, &look.x, &look.y, &look.step_x, &look.step_y, &look.weight,
                  &look.fx, &look.fy, &look.share[0], &look.share[1], &look.share[2],
                  &look.share[3]})
      *p = arena.take<C>(padded);
    for (I** p : {&look.index, &look.inside[0], &look.inside[1], &look.inside[2], &look.inside[3]})
      *p = arena.take<I>(padded);
    for (int64_t*& at : look.at) at = arena.take<int64_t>(padded);
  }

  void tabulate() {
    Samples<C>& samples = this->samples;
    int64_t start = 0;
    for (int s = 0; s < samples.padded; ++s) {
      const int level = s / int(call.points), point = s % int(call.points);
      const bool real = s < samples.count;
      samples.height[s] = real ? I(call.sides[2 * level]) : 0;
      samples.width[s] = real ? I(call.sides[2 * level + 1]) : 0;
      samples.level[s] = real ? level : 0;
      samples.high[s] = C(samples.height[s]);
      samples.wide[s] = C(samples.width[s]);
      samples.start[s] = I(start);
      samples.own[s] = !real ? 0 : call.own_levels == 1 ? point : s;
      for (Look<C>& look : this->looks) {
        look.dx[s] = look.dy[s] = look.weight[s] = look.x[s] = look.y[s] = 0;
        look.step_x[s] = samples.wide[s];
        look.step_y[s] = samples.high[s];
      }
      if (real && point == call.points - 1) start += call.sides[2 * level] * call.sides[2 * level + 1];
    }
  }
};

}  // namespace LEANDETR_VARIANT
