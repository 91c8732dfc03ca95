// Where one head of one query looks: corners, their shares, and how both depend on the location.
//
// Pixel i of a side of n spans (i / n, (i + 1) / n). A corner outside its map counts as zero: it is
// read from a row of zeros, never from the map times zero, so that Inf and NaN there do no harm.
#pragma once
#include "lanes.h"

namespace LEANDETR_VARIANT {

// Facts about each of the L * P samples, the same for all queries; padded to whole vectors.
template <class C> struct Samples {
  typedef typename Wide<C>::Whole I;
  int count, padded;
  C *wide, *high;             // sides of the sample's level
  I *width, *height, *start;  // the same, whole, and the level's first token
  I* level;                   // its number
  int32_t* own;               // which of the offsets
};

// One query and head.
template <class C> struct Look {
  typedef typename Wide<C>::Whole I;
  C *dx, *dy;          // as given: locations, or offsets
  C *x, *y;            // in pixels, 0 in the middle of the first
  C *step_x, *step_y;  // pixels a unit of dx, dy
  C* weight;           // attention weight
  C *fx, *fy;          // how far between the corners
  C* share[4];         // of corners: upper left, upper right, lower left, lower right
  int64_t* at[4];      // their first numbers, counted from row 0
  I* index;            // token of the upper left corner, below zero in a first margin
  I* inside[4];        // all bits set where the corner is on the map
};

template <class V> inline V within(V x, V low, V high) {
  x = x > low ? x : low;  // NaN becomes low
  return x < high ? x : high;
}

// Fills fractions, shares, index and inside from x and y; vector number i.
template <class C> inline void find_corners(const Samples<C>& all, Look<C>& look, int i) {
  typedef Vec<C> V;
  typedef typename Wide<C>::I I;
  const V given_x = load(look.x, i), given_y = load(look.y, i);
  const V x = within(given_x, splat(C(-2)), load(all.wide, i) + 1);
  const V y = within(given_y, splat(C(-2)), load(all.high, i) + 1);
  I left = __builtin_convertvector(x, I), top = __builtin_convertvector(y, I);
  left += __builtin_convertvector(left, V) > x;  // true is -1
  top += __builtin_convertvector(top, V) > y;
  // NaN and Inf make NaN, as in grid_sample
  const V fx = x - __builtin_convertvector(left, V) + (given_x - given_x);
  const V fy = y - __builtin_convertvector(top, V) + (given_y - given_y);
  save(look.fx, i, fx);
  save(look.fy, i, fy);
  save(look.share[0], i, (1 - fx) * (1 - fy));
  save(look.share[1], i, fx * (1 - fy));
  save(look.share[2], i, (1 - fx) * fy);
  save(look.share[3], i, fx * fy);
  const I width = load(all.width, i), height = load(all.height, i);
  const I has_left = (left >= 0) & (left < width), has_right = (left >= -1) & (left + 1 < width);
  const I has_top = (top >= 0) & (top < height), has_bottom = (top >= -1) & (top + 1 < height);
  save(look.inside[0], i, has_left & has_top);
  save(look.inside[1], i, has_right & has_top);
  save(look.inside[2], i, has_left & has_bottom);
  save(look.inside[3], i, has_right & has_bottom);
  typedef typename Wide<C>::U U;  // wraps around where no corner is inside
  save(look.index, i, (I)((U)load(all.start, i) + (U)top * (U)width + (U)left));
}

// Fills everything that follows from x and y; rows are `stride` numbers apart.
template <class C>
inline void place(const Samples<C>& all, Look<C>& look, int64_t stride, int64_t nowhere) {
  typedef typename Wide<C>::Whole I;
  const int vectors = all.padded / LANES<C>, padded = all.padded;
  for (int i = 0; i < vectors; ++i) find_corners(all, look, i);
  const I *__restrict index = look.index, *__restrict width = all.width;
  for (int c = 0; c < 4; ++c) {
    const I* __restrict inside = look.inside[c];
    int64_t* __restrict at = look.at[c];
    const int64_t right = c % 2 * stride, down = c / 2 * stride;
    for (int s = 0; s < padded; ++s) {
      const int64_t here = index[s] * stride + right + width[s] * down;
      at[s] = inside[s] ? here : nowhere;
    }
  }
}

}  // namespace LEANDETR_VARIANT
