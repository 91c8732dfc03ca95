// Reads where one head of one query looks.
#pragma once
#include "rows.h"

namespace LEANDETR_VARIANT {

// In place: shares that add up to one.
template <class C> inline void softmax(C* logits, int count, int padded) {
  for (int s = count; s < padded; ++s) logits[s] = -INFINITY;
  Vec<C> top = load(logits, 0), total = {};
  for (int i = 1; i < padded / LANES<C>; ++i) {
    const Vec<C> more = load(logits, i);
    top = top > more ? top : more;
  }
  const Vec<C> peak = largest<C>(top);
  for (int i = 0; i < padded / LANES<C>; ++i) {
    const Vec<C> e = exponential(load(logits, i) - peak);
    total += e;
    save(logits, i, e);
  }
  const Vec<C> scale = 1 / sum<C>(total);
  for (int i = 0; i < padded / LANES<C>; ++i) save(logits, i, load(logits, i) * scale);
}

// Number `which` of a query's reference on each sample's level.
template <class C, int R>
inline Vec<C> on_levels(const Desk<C>& desk, const C* reference, int i, int which) {
  typedef typename Wide<C>::I I;
  const I at = load(desk.samples.level, i) * R + which;
#if !defined(__clang__)
  if (desk.call.levels * R <= 2 * LANES<C>)
    return __builtin_shuffle(load(reference, 0), load(reference, 1), at);
#endif
  Vec<C> found;
  for (int lane = 0; lane < LANES<C>; ++lane) found[lane] = reference[at[lane]];
  return found;
}

// From (x, y) as given to locations, as `locate` in reference_at.py; R numbers make a reference
// point, 0: locations are given. Steps are pixels a unit of what is given.
template <int R, class C> inline void locate(const Desk<C>& desk, const C* reference, int i,
                                             Vec<C>& x, Vec<C>& y, Vec<C>& step_x, Vec<C>& step_y) {
  const Vec<C> one = splat(C(1)), half = splat(C(0.5));
  const Vec<C> wide = load(desk.samples.wide, i), high = load(desk.samples.high, i);
  step_x = R == 2 ? one : wide;
  step_y = R == 2 ? one : high;
  if constexpr (R == 2) {
    x = on_levels<C, R>(desk, reference, i, 0) + x / (wide > one ? wide : one);
    y = on_levels<C, R>(desk, reference, i, 1) + y / (high > one ? high : one);
  } else if constexpr (R == 4) {
    const Vec<C> points = splat(C(desk.call.points));
    const Vec<C> box_x = on_levels<C, R>(desk, reference, i, 2);
    const Vec<C> box_y = on_levels<C, R>(desk, reference, i, 3);
    x = on_levels<C, R>(desk, reference, i, 0) + x / points * box_x * half;
    y = on_levels<C, R>(desk, reference, i, 1) + y / points * box_y * half;
    step_x = box_x * wide * half / points;
    step_y = box_y * high * half / points;
  }
}

// Pixels from a location. Written and rounded as grid_sample does it: on the border of two cells,
// where untrained offsets put every sample, the last bit decides which gradient counts.
template <class C> inline Vec<C> pixel(Vec<C> location, Vec<C> side) {
  return (location * 2 - 1 + 1) * (side * C(0.5)) - C(0.5);  // fused, as there
}

// Asks for what a query some steps on will read and write: heads lie apart, so that the processor
// does not see the pattern by itself.
template <class C>
INLINED void fetch_ahead(const Desk<C>& desk, const Span& span, const Spot& spot) {
  constexpr int64_t STEPS = 16;
  const Call& call = desk.call;
  if (span.heads > 1 || spot.query + STEPS >= span.end) return;
  const int64_t row = spot.row + STEPS * call.heads;
  const int64_t own = call.own_levels * call.points * 2, all = desk.samples.count;
  fetch<0>(call.where, row * own, own);
  if (call.weights.data) fetch<0>(call.weights, row * all, all);
  if (call.query.data) fetch<0>(call.query, row * call.width, call.width);
  fetch<1>(call.output, row * call.width, call.width);
  if (!desk.needs.backward) return;
  fetch<1>(call.where_grad, row * own, own);
  if (call.weights.data) fetch<1>(call.weights_grad, row * all, all);
  if (call.query.data) fetch<1>(call.query_grad, row * call.width, call.width);
}

// Pairs (x, y), one a sample.
template <class C> inline const C* pairs_of(const Desk<C>& desk, const Spot& spot) {
  const Call& call = desk.call;
  const int own = int(call.own_levels * call.points), count = desk.samples.count;
  if (own == count)
    return desk.given(call.where, spot.row * own * 2, own * 2, desk.samples.padded * 2, desk.pairs);
  read(desk.pairs, call.where, spot.row * own * 2, own * 2);
  for (int n = own * 2; n < count * 2; ++n) desk.pairs[n] = desk.pairs[n - own * 2];
  return desk.pairs;
}

// Attention weights; null where the operator makes them later.
template <class C> inline const C* weights_of(const Desk<C>& desk, const Spot& spot) {
  const Call& call = desk.call;
  const int count = desk.samples.count;
  if (!call.weights.data) return nullptr;
  if (!call.reference_width)
    return desk.given(call.weights, spot.row * count, count, desk.samples.padded, desk.weights);
  read(desk.weights, call.weights, spot.row * count, count);
  softmax(desk.weights, count, desk.samples.padded);
  return desk.weights;
}

// Fills one look. Its shares hold the attention weights, where there are any.
template <int R, class C>
inline void look_at(const Desk<C>& desk, const Spot& spot, const C* reference, Cluster<C>* look) {
  const Samples<C> all = desk.samples;
  const C *pairs = pairs_of(desk, spot), *weights = weights_of(desk, spot);
  for (int i = 0; i < all.padded / LANES<C>; ++i) {
    Cluster<C>& to = look[i];
    const Vec<C> one = load(pairs, 2 * i), two = load(pairs, 2 * i + 1);
    const Vec<C> dx = alternate<C, 0>(one, two), dy = alternate<C, 1>(one, two);
    Vec<C> x = dx, y = dy, step_x, step_y, fx, fy;
    locate<R>(desk, reference, i, x, y, step_x, step_y);
    x = pixel<C>(x, load(all.wide, i));
    y = pixel<C>(y, load(all.high, i));
    find_corners(all, i, x, y, to, fx, fy);
    const Vec<C> weight = weights ? load(weights, i) : splat(C(1));
    share_out(to, fx, fy, weight);
    if (!desk.needs.backward) continue;
    save(to.weight, 0, weight);
    save(to.fx, 0, fx);
    save(to.fy, 0, fy);
    save(to.dx, 0, dx);
    save(to.dy, 0, dy);
    save(to.step_x, 0, step_x);
    save(to.step_y, 0, step_y);
  }
}

// Fills a block of looks, from look number `first` of the span on.
template <int R, class C> __attribute__((noinline)) void look_around(const Desk<C>& desk,
                                                                     const Span& span,
                                                                     int64_t first, int looks) {
  const Call& call = desk.call;
  const int numbers = int(call.levels) * R;
  for (int j = 0; j < looks; ++j) {
    const Spot spot = span.spot(call, first + j);
    if (R)
      read(desk.references + j * desk.reference_row, call.reference, spot.asked * numbers, numbers);
  }
  for (int j = 0; j < looks; ++j)
    look_at<R>(desk, span.spot(call, first + j), desk.references + j * desk.reference_row,
               desk.look(j));
}

// Calls work(first, looks) for each block of looks, once they are filled.
template <class C, class Work>
inline void for_each_block(const Desk<C>& desk, const Span& span, Work work) {
  for (int64_t first = 0; first < span.looks(); first += desk.looks) {
    const int64_t left = span.looks() - first;
    const int looks = int(left < desk.looks ? left : desk.looks);
    switch (desk.call.reference_width) {
      case 0: look_around<0>(desk, span, first, looks); break;
      case 2: look_around<2>(desk, span, first, looks); break;
      default: look_around<4>(desk, span, first, looks);
    }
    work(first, looks);
  }
}

}  // namespace LEANDETR_VARIANT
