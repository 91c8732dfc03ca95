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
  int row;    // numbers of a packed row: the width, rounded up to one that is compiled
  int heads;  // how many are worked on together
};

// One look: a head of a query. They are numbered within a span, all heads of a query and then the
// next query, which lie side by side in memory.
struct Spot {
  int64_t query, head;
  int64_t asked;  // number of the query in `reference`
  int64_t row;    // number of the look in `where`, `weights`, `query` and `output`
};
struct Span {
  int64_t image, head, heads, begin, end;  // from query to query
  int64_t looks() const { return (end - begin) * heads; }
  Spot spot(const Call& call, int64_t look) const {
    const int64_t q = begin + (heads == 1 ? look : look / heads);
    const int64_t h = head + (heads == 1 ? 0 : look % heads);
    const int64_t asked = image * call.queries + q;
    return {q, h, asked, asked * call.heads + h};
  }
};

// What does not depend on how rows are stored. Looks are worked on in blocks, each step on all of
// them, so that none waits for the one before.
template <class C> struct Desk {
  const Call& call;
  const Needs needs;
  Samples<C> samples;
  int looks, clusters;  // of a block; of a look
  int reference_row;    // room for the reference of one query
  Cluster<C>* block;
  C *pairs, *pair_grads, *weights;  // one look's, converted
  C* references;                    // of all looks of a block; so are the next
  C *logits, *pulls, *mixed;
  C *query, *grad, *out;  // one row each
  C *dots[4], *by[2];     // per sample
  Desk(const Call& call, const Needs& needs) : call(call), needs(needs) {}
  Cluster<C>* look(int j) const { return block + j * clusters; }
  int vectors() const { return samples.padded / LANES<C>; }

  // Numbers of an array, read in vectors up to `padded`: as they lie there, or else in `room`.
  const C* given(const Array& from, int64_t first, int count, int padded, C* room) const {
    if (from.type == TYPE_OF<C> && count == padded) return static_cast<const C*>(from.data) + first;
    read(room, from, first, count);
    return room;
  }
  // Where to write numbers that are to go to an array; afterwards call `deliver`.
  C* target(const Array& to, int64_t first, int count, int padded, C* room) const {
    return to.type == TYPE_OF<C> && count == padded ? static_cast<C*>(to.data) + first : room;
  }
  void deliver(const Array& to, int64_t first, int count, const C* from, const C* room) const {
    if (from == room) write(to, first, room, count);
  }
};

template <class S> struct Bench : Desk<typename Computed<S>::type> {
  typedef typename Computed<S>::type C;
  typedef typename Packed<S>::type P;
  typedef typename Wide<C>::Whole I;
  using Desk<C>::call;
  using Desk<C>::needs;

  S* zeros;             // a row
  C* waste;             // one to add to where there is no token
  char *values, *keys;  // packed rows

  Bench(const Call& call, const Needs& needs) : Desk<C>(call, needs) {
    Arena count{nullptr, 0};
    lay_out(count);
    memory_ = scratch(count.used);
    if (!memory_) return;
    Arena real{memory_, 0};
    lay_out(real);
    memset(memory_, 0, cleared_);
    tabulate();
  }
  static char* scratch(int64_t bytes) { return static_cast<char*>(aligned_alloc(64, bytes)); }
  ~Bench() { free(memory_); }
  Bench(const Bench&) = delete;
  bool ready() const { return memory_; }

 private:
  char* memory_ = nullptr;
  int64_t cleared_ = 0;

  void lay_out(Arena& arena) {
    constexpr int N = LANES<C>;
    Samples<C>& samples = this->samples;
    const int count = int(call.levels * call.points), padded = (count + N - 1) / N * N;
    samples.count = count;
    samples.padded = padded;
    this->clusters = padded / N;
    this->looks = padded <= 64 ? 4 : 1;
    this->reference_row = (int(call.levels * call.reference_width) / N + 2) * N;
    const int64_t looks = this->looks, row = needs.row;
    this->block = arena.take<Cluster<C>>(looks * this->clusters);
    for (C** p : {&samples.wide, &samples.high, &this->weights, &this->dots[0], &this->dots[1],
                  &this->dots[2], &this->dots[3], &this->by[0], &this->by[1]})
      *p = arena.take<C>(padded);
    for (I** p : {&samples.width, &samples.height, &samples.start, &samples.level})
      *p = arena.take<I>(padded);
    for (C** p : {&this->pairs, &this->pair_grads}) *p = arena.take<C>(2 * padded);
    this->references = arena.take<C>(looks * this->reference_row);
    for (C** p : {&this->logits, &this->pulls}) *p = arena.take<C>(looks * padded);
    for (C** p : {&this->query, &this->grad, &this->out, &waste}) *p = arena.take<C>(row);
    zeros = arena.take<S>(row);
    this->mixed = arena.take<C>(looks * padded * row);
    cleared_ = arena.used;
    const int64_t numbers = needs.packed ? (call.tokens + 1) * row : 0;
    const int64_t packed =
        numbers / Packed<S>::HOLDS * sizeof(P) + (needs.backward ? numbers * sizeof(C) : 0);
    values = arena.take<char>(packed);
    keys = arena.take<char>(needs.own_key ? packed : 0);
  }

  void tabulate() {
    Samples<C>& samples = this->samples;
    int64_t start = 0;
    for (int s = 0; s < samples.count; ++s) {
      const int level = s / int(call.points);
      samples.height[s] = I(call.sides[2 * level]);
      samples.width[s] = I(call.sides[2 * level + 1]);
      samples.level[s] = level;
      samples.high[s] = C(samples.height[s]);
      samples.wide[s] = C(samples.width[s]);
      samples.start[s] = I(start);
      if ((s + 1) % call.points == 0) start += call.sides[2 * level] * call.sides[2 * level + 1];
    }
  }
};

}  // namespace LEANDETR_VARIANT
