// Reads where one head of one query looks, and writes the gradients of that.
#pragma once
#include "bench.h"

namespace LEANDETR_VARIANT {

template <class T, class C>
inline void read_pairs_as(C* x, C* y, const void* from, int64_t first, int count) {
  const T* source = static_cast<const T*>(from) + first;
  INDEPENDENT
  for (int i = 0; i < count; ++i) {
    x[i] = C(widen(source[2 * i]));
    y[i] = C(widen(source[2 * i + 1]));
  }
}
template <class C> inline void read_pairs(C* x, C* y, const Array& from, int64_t first, int count) {
  switch (from.type) {
    case FLOAT32: return read_pairs_as<float>(x, y, from.data, first, count);
    case FLOAT64: return read_pairs_as<double>(x, y, from.data, first, count);
    case BFLOAT16: return read_pairs_as<bfloat>(x, y, from.data, first, count);
    default: return read_pairs_as<half>(x, y, from.data, first, count);
  }
}

// In place: shares that add up to one.
template <class C> inline void softmax(C* logits, int count, int padded) {
  for (int s = count; s < padded; ++s) logits[s] = -INFINITY;
  Vec<C> top = load(logits, 0), total = {};
  for (int i = 1; i < padded / LANES<C>; ++i) {
    Vec<C> more = load(logits, i);
    top = top > more ? top : more;
  }
  const Vec<C> peak = splat(largest<C>(top));
  for (int i = 0; i < padded / LANES<C>; ++i) {
    Vec<C> e = exponential(load(logits, i) - peak);
    total += e;
    save(logits, i, e);
  }
  const Vec<C> scale = splat(1 / sum<C>(total));
  for (int i = 0; i < padded / LANES<C>; ++i) save(logits, i, load(logits, i) * scale);
}

// Copies the reference of a query to where `locate` finds it.
template <class C> inline void read_reference(Desk<C>& desk, int64_t image, int64_t query) {
  const Call& call = desk.call;
  const int numbers = int(call.levels * call.reference_width);
  if (numbers == 0 || query >= call.queries) return;
  read(desk.reference, call.reference, (image * call.queries + query) * numbers, numbers);
}

// Number `which` of the reference on each sample's level.
template <class C> inline Vec<C> on_levels(const Desk<C>& desk, int i, int which) {
  typedef typename Wide<C>::I I;
  const int numbers = int(desk.call.reference_width);
  const I at = load(desk.samples.level, i) * numbers + which;
  const C* reference = desk.reference;
#if !defined(__clang__)
  if (desk.call.levels * numbers <= 2 * LANES<C>)
    return __builtin_shuffle(load(reference, 0), load(reference, 1), at);
#endif
  Vec<C> picked;
  for (int lane = 0; lane < LANES<C>; ++lane) picked[lane] = reference[at[lane]];
  return picked;
}

// Locations from reference and offsets, as `locate` in reference_at.py. The reference was read one
// call before, because it takes a while until what was written can be read as one vector.
template <class C>
inline void locate(Desk<C>& desk, const Look<C> look, int64_t image, int64_t query) {
  const int points = int(desk.call.points), numbers = int(desk.call.reference_width);
  const Samples<C> all = desk.samples;
  const Vec<C> one = splat(C(1)), half = splat(C(0.5)), share = splat(C(points));
  for (int i = 0; i < all.padded / LANES<C>; ++i) {
    const Vec<C> dx = load(look.dx, i), dy = load(look.dy, i);
    const Vec<C> wide = load(all.wide, i), high = load(all.high, i);
    const Vec<C> x = on_levels(desk, i, 0), y = on_levels(desk, i, 1);
    if (numbers == 2) {
      save(look.x, i, x + dx / (wide > one ? wide : one));
      save(look.y, i, y + dy / (high > one ? high : one));
      save(look.step_x, i, one);
      save(look.step_y, i, one);
    } else {
      const Vec<C> box_x = on_levels(desk, i, 2), box_y = on_levels(desk, i, 3);
      save(look.x, i, x + dx / share * box_x * half);
      save(look.y, i, y + dy / share * box_y * half);
      save(look.step_x, i, box_x * wide * half / share);
      save(look.step_y, i, box_y * high * half / share);
    }
  }
  read_reference(desk, image, query + 1);
}

// Pixels from a location. Written and rounded as grid_sample does it: on the border of two cells,
// where untrained offsets put every sample, the last bit decides which gradient counts.
template <class C> inline Vec<C> pixel(Vec<C> location, Vec<C> side) {
  return (location * 2 - 1 + 1) * (side * C(0.5)) - C(0.5);  // fused, as there
}

// Asks for what a query some steps on will read and write: heads lie apart, so that the processor
// does not see the pattern by itself.
template <class C>
inline void fetch_ahead(const Desk<C>& bench, int64_t image, int64_t query, int64_t head) {
  constexpr int64_t STEPS = 8;
  const Call& call = bench.call;
  if (query + STEPS >= call.queries) return;
  const int64_t row = (image * call.queries + query + STEPS) * call.heads + head;
  const int64_t own = call.own_levels * call.points * 2, all = bench.samples.count;
  fetch<0>(call.where, row * own, own);
  if (call.weights.data) fetch<0>(call.weights, row * all, all);
  if (call.query.data) fetch<0>(call.query, row * call.width, call.width);
  fetch<1>(call.output, row * call.width, call.width);
  if (!bench.needs.backward) return;
  fetch<1>(call.where_grad, row * own, own);
  if (call.weights.data) fetch<1>(call.weights_grad, row * all, all);
  if (call.query.data) fetch<1>(call.query_grad, row * call.width, call.width);
}

// Fills `look` for one head of one query; rows are `stride` numbers apart.
template <class C>
__attribute__((noinline)) void look_at(Desk<C>& bench, Look<C>& look, int64_t image, int64_t query,
                                       int64_t head, int64_t stride, int64_t nowhere) {
  const Call& call = bench.call;
  Samples<C>& all = bench.samples;
  const int64_t asked = (image * call.queries + query) * call.heads + head;
  const int own = int(call.own_levels * call.points);
  read_pairs(look.dx, look.dy, call.where, asked * own * 2, own);
  if (own < all.count) {
    for (int s = all.count - 1; s >= own; --s) {
      look.dx[s] = look.dx[all.own[s]];
      look.dy[s] = look.dy[all.own[s]];
    }
  }
  if (call.reference_width) locate(bench, look, image, query);
  C *at_x = call.reference_width ? look.x : look.dx, *at_y = call.reference_width ? look.y : look.dy;
  for (int i = 0; i < all.padded / LANES<C>; ++i) {
    save(look.x, i, pixel<C>(load(at_x, i), load(all.wide, i)));
    save(look.y, i, pixel<C>(load(at_y, i), load(all.high, i)));
  }
  place(all, look, stride, nowhere);
  if (call.weights.data) {
    read(look.weight, call.weights, asked * all.count, all.count);
    if (call.reference_width) softmax(look.weight, all.count, all.padded);
  }
}

// Calls work(look, query) for each query of one head, one look ahead of the work, so that
// the processor finds the next rows while it waits for these.
template <class S, class Work>
inline void for_each_look(Bench<S>& bench, int64_t image, int64_t head, int64_t begin, int64_t end,
                          const Rows<S>& rows, Work work) {
  typedef typename Bench<S>::C C;
  read_reference<C>(bench, image, begin);
  for (int64_t q = begin; q <= end; ++q) {
    Look<C>&next = bench.looks[q % 2], &now = bench.looks[(q + 1) % 2];
    if (q < end) {
      fetch_ahead<C>(bench, image, q, head);
      look_at<C>(bench, next, image, q, head, rows.stride, rows.nowhere);
    }
    if (q > begin) work(now, q - 1);
  }
}

}  // namespace LEANDETR_VARIANT
