// Gradients of where one head of one query looked.
#pragma once
#include "looking.h"

namespace LEANDETR_VARIANT {

// Sums over lanes of all products of a corner and a row.
template <class C> inline void sum_products(const Vec<C>* products, C* const* dots, int padded) {
  for (int c = 0; c < 4; ++c)
    for (int i = 0; i < padded / LANES<C>; ++i)
      save(dots[c], i, sums<C>(products + c * padded + i * LANES<C>));
}

// What all corners say together: their numbers weighed by their shares.
template <class C> inline Vec<C> blend(const Look<C>& look, C* const* dots, int i) {
  return load(look.share[0], i) * load(dots[0], i) + load(look.share[1], i) * load(dots[1], i) +
         load(look.share[2], i) * load(dots[2], i) + load(look.share[3], i) * load(dots[3], i);
}

template <class T, class C>
inline void write_pairs_as(void* to, int64_t first, const C* x, const C* y, int count) {
  T* target = static_cast<T*>(to) + first;
  INDEPENDENT
  for (int i = 0; i < count; ++i) {
    narrow(x[i], target[2 * i]);
    narrow(y[i], target[2 * i + 1]);
  }
}
template <class C>
__attribute__((noinline)) void write_pairs(const Array& to, int64_t first, const C* x, const C* y,
                                           int count) {
  switch (to.type) {
    case FLOAT32: return write_pairs_as<float>(to.data, first, x, y, count);
    case FLOAT64: return write_pairs_as<double>(to.data, first, x, y, count);
    case BFLOAT16: return write_pairs_as<bfloat>(to.data, first, x, y, count);
    default: return write_pairs_as<half>(to.data, first, x, y, count);
  }
}

// One head's part of the gradient of a query's reference; pulls are those of the pixels.
template <class C>
inline void write_reference(const Desk<C>& desk, const Look<C>& look, const C* by_x, const C* by_y,
                            int64_t image, int64_t query, int64_t head) {
  const Call& call = desk.call;
  const int numbers = int(call.reference_width), points = int(call.points);
  const int64_t first =
      ((head * call.images + image) * call.queries + query) * call.levels * numbers;
  for (int l = 0; l < int(call.levels); ++l) {
    const C wide = desk.samples.wide[l * points], high = desk.samples.high[l * points];
    C part[4] = {0, 0, 0, 0};
    for (int s = l * points; s < (l + 1) * points; ++s) {
      part[0] += by_x[s];
      part[1] += by_y[s];
      part[2] += by_x[s] * look.dx[s];
      part[3] += by_y[s] * look.dy[s];
    }
    part[0] *= wide;
    part[1] *= high;
    part[2] *= wide * C(0.5) / points;
    part[3] *= high * C(0.5) / points;
    write(call.reference_grad, first + l * numbers, part, numbers);
  }
}

// Writes the gradients of locations (or offsets and reference), given how much a unit of
// attention pulls at each corner: `dots`, of which the first two are used up.
template <class C>
__attribute__((noinline)) void write_where(Desk<C>& desk, Look<C>& look, C* const* dots,
                                           int64_t image, int64_t query, int64_t head) {
  const Call& call = desk.call;
  const int own = int(call.own_levels * call.points), count = desk.samples.count;
  C *by_x = dots[0], *by_y = dots[1];
  for (int i = 0; i < desk.samples.padded / LANES<C>; ++i) {
    const Vec<C> a = load(dots[0], i), b = load(dots[1], i), c = load(dots[2], i);
    const Vec<C> d = load(dots[3], i), fx = load(look.fx, i), fy = load(look.fy, i);
    save(by_x, i, (b - a) + fy * ((d - c) - (b - a)));
    save(by_y, i, (c - a) + fx * ((d - b) - (c - a)));
  }
  if (call.reference_grad.data) write_reference(desk, look, by_x, by_y, image, query, head);
  for (int i = 0; i < desk.samples.padded / LANES<C>; ++i) {
    save(by_x, i, load(by_x, i) * load(look.step_x, i));
    save(by_y, i, load(by_y, i) * load(look.step_y, i));
  }
  for (int s = own; s < count; ++s) {  // offsets that levels share
    by_x[desk.samples.own[s]] += by_x[s];
    by_y[desk.samples.own[s]] += by_y[s];
  }
  const int64_t asked = (image * call.queries + query) * call.heads + head;
  write_pairs(call.where_grad, asked * own * 2, by_x, by_y, own);
}

// The gradient of logits, given shares that add up to one and the pull at each; in place of it.
template <class C> inline void pull_logits(const C* shares, C* pulls, int padded) {
  Vec<C> mean = {};
  for (int i = 0; i < padded / LANES<C>; ++i) mean += load(shares, i) * load(pulls, i);
  const Vec<C> whole = splat(sum<C>(mean));
  for (int i = 0; i < padded / LANES<C>; ++i)
    save(pulls, i, load(shares, i) * (load(pulls, i) - whole));
}

}  // namespace LEANDETR_VARIANT
