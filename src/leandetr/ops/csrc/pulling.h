// Gradients of rows, and of where one head of one query looked.
#pragma once
#include "looking.h"

namespace LEANDETR_VARIANT {

// step(cluster, lane, sample, products) fills COUNT vectors for each sample of a look; their sums
// over lanes go to to[0..COUNT).
template <int COUNT, class C, class Step>
INLINED void sum_lanes(const Cluster<C>* look, int count, C* const* to, Step step) {
  constexpr int N = LANES<C>, P = PART<C>;
  for (int i = 0; i * N < count; ++i) {
    Vec<C> parts[COUNT][N / P];
    for (int p = 0; p < N / P; ++p) {
      if (i * N + p * P >= count) {
        for (auto& part : parts) part[p] = Vec<C>{};
        continue;
      }
      Vec<C> products[P][COUNT];
      UNROLLED
      for (int lane = 0; lane < P; ++lane)
        step(look[i], p * P + lane, i * N + p * P + lane, products[lane]);
      UNROLLED
      for (int n = 0; n < COUNT; ++n) {
        Vec<C> same[P];
        for (int lane = 0; lane < P; ++lane) same[lane] = products[lane][n];
        parts[n][p] = sum_in_parts<C>(same);
      }
    }
    for (int n = 0; n < COUNT; ++n) save(to[n], i, sum_parts<C>(parts[n]));
  }
}

// Corners outside pull at nothing, whatever Inf or NaN times a zero may be.
template <class C> inline void forget_outside(const Desk<C>& desk, const Cluster<C>* look) {
  for (int i = 0; i < desk.vectors(); ++i)
    for (int c = 0; c < 4; ++c) {
      const Vec<C> dots = load(desk.dots[c], i);
      save(desk.dots[c], i, load(look[i].at[c], 0) < 0 ? Vec<C>{} : dots);
    }
}

// pull(s, i) is what pulls at the row of sample s, vector i of it. Adds its share to the sums of
// each corner, and compares it with the row there: `dots`.
template <int W, class C, class R, class Sums, class Pull>
INLINED void spread(const Desk<C>& desk, const Cluster<C>* look, const R rows, const Sums sums,
                    Pull pull) {
  constexpr int N = W ? W / LANES<C> : 1;
  const int vectors = W ? N : desk.needs.row / LANES<C>;
  sum_lanes<4>(look, desk.samples.count, desk.dots,
               [=](const Cluster<C>& k, int lane, int s, Vec<C>* dots) INLINED_HERE {
                 Vec<C> kept[N];
                 for (int i = 0; i < N; ++i) kept[i] = pull(s, i);
                 UNROLLED
                 for (int c = 0; c < 4; ++c) {
                   const auto* row = rows.at(k.at[c][lane]);
                   C* to = sums.at(k.at[c][lane]);
                   const Vec<C> share = splat(k.share[c][lane]);
                   Vec<C> dot = kept[0] * load(row, 0);
                   save(to, 0, load(to, 0) + share * kept[0]);
                   for (int i = 1; i < vectors; ++i) {
                     const Vec<C> by = W ? kept[W ? i : 0] : pull(s, i);
                     dot += by * load(row, i);
                     save(to, i, load(to, i) + share * by);
                   }
                   dots[c] = dot;
                 }
               });
  forget_outside(desk, look);
}

// What all corners of samples say together, by their shares, without the attention weights.
template <class C> inline Vec<C> blend(const Desk<C>& desk, const Cluster<C>& k, int i) {
  const Vec<C> fx = load(k.fx, 0), fy = load(k.fy, 0);
  return ((1 - fx) * load(desk.dots[0], i) + fx * load(desk.dots[1], i)) * (1 - fy) +
         ((1 - fx) * load(desk.dots[2], i) + fx * load(desk.dots[3], i)) * fy;
}

// The gradient of logits, given shares that add up to one and the pull at each; in place of it.
template <class C> inline void pull_logits(const C* shares, C* pulls, int padded) {
  Vec<C> mean = {};
  for (int i = 0; i < padded / LANES<C>; ++i) mean += load(shares, i) * load(pulls, i);
  const Vec<C> whole = sum<C>(mean);
  for (int i = 0; i < padded / LANES<C>; ++i)
    save(pulls, i, load(shares, i) * (load(pulls, i) - whole));
}

// Writes the gradient of attention weights, or of logits; `dots` are the pulls at corners.
template <class C>
inline void pull_weights(Desk<C>& desk, const Cluster<C>* look, const Spot& spot) {
  const Call& call = desk.call;
  const int count = desk.samples.count;
  C* pulls =
      desk.target(call.weights_grad, spot.row * count, count, desk.samples.padded, desk.pulls);
  for (int i = 0; i < desk.vectors(); ++i) save(pulls, i, blend(desk, look[i], i));
  if (call.reference_width) {
    for (int i = 0; i < desk.vectors(); ++i) save(desk.weights, i, load(look[i].weight, 0));
    pull_logits(desk.weights, pulls, desk.samples.padded);
  }
  desk.deliver(call.weights_grad, spot.row * count, count, pulls, desk.pulls);
}

// One head's part of the gradient of a query's reference; `by` are the pulls at pixels.
template <class C> inline void write_reference(const Desk<C>& desk, const Cluster<C>* look,
                                               const Span& span, const Spot& spot) {
  const Call& call = desk.call;
  const int numbers = int(call.reference_width), points = int(call.points);
  const int64_t first = (spot.head * call.images + span.image) * call.queries + spot.query;
  for (int l = 0; l < int(call.levels); ++l) {
    const C wide = desk.samples.wide[l * points], high = desk.samples.high[l * points];
    C part[4] = {0, 0, 0, 0};
    for (int s = l * points; s < (l + 1) * points; ++s) {
      const Cluster<C>& k = look[s / LANES<C>];
      part[0] += desk.by[0][s];
      part[1] += desk.by[1][s];
      part[2] += desk.by[0][s] * k.dx[s % LANES<C>];
      part[3] += desk.by[1][s] * k.dy[s % LANES<C>];
    }
    part[0] *= wide;
    part[1] *= high;
    part[2] *= wide * C(0.5) / points;
    part[3] *= high * C(0.5) / points;
    write(call.reference_grad, (first * call.levels + l) * numbers, part, numbers);
  }
}

// Writes the gradients of locations (or offsets and reference), given how much a unit of
// attention pulls at each corner: `dots`.
template <class C>
inline void write_where(Desk<C>& desk, const Cluster<C>* look, const Span& span, const Spot& spot) {
  const Call& call = desk.call;
  const int own = int(call.own_levels * call.points), count = desk.samples.count;
  C *by_x = desk.by[0], *by_y = desk.by[1];
  for (int i = 0; i < desk.vectors(); ++i) {
    const Vec<C> fx = load(look[i].fx, 0), fy = load(look[i].fy, 0);
    const Vec<C> a = load(desk.dots[0], i), b = load(desk.dots[1], i);
    const Vec<C> c = load(desk.dots[2], i), d = load(desk.dots[3], i);
    save(by_x, i, (b - a) + fy * ((d - c) - (b - a)));
    save(by_y, i, (c - a) + fx * ((d - b) - (c - a)));
  }
  if (call.reference_grad.data) write_reference(desk, look, span, spot);
  const int padded = desk.samples.padded;
  C* pairs = desk.target(call.where_grad, spot.row * own * 2, own * 2, padded * 2, desk.pair_grads);
  for (int i = 0; i < desk.vectors(); ++i) {
    const Vec<C> x = load(by_x, i) * load(look[i].step_x, 0),
                 y = load(by_y, i) * load(look[i].step_y, 0);
    save(pairs, 2 * i, interleave<C, 0>(x, y));
    save(pairs, 2 * i + 1, interleave<C, 1>(x, y));
  }
  for (int n = own * 2; n < count * 2; ++n)
    pairs[n % (own * 2)] += pairs[n];  // levels share offsets
  desk.deliver(call.where_grad, spot.row * own * 2, own * 2, pairs, desk.pair_grads);
}

}  // namespace LEANDETR_VARIANT
