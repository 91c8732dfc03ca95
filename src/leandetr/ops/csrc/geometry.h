// Where one head of one query looks: corners, their shares, and how both depend on the location.
//
// Pixel i of a side of n spans (i / n, (i + 1) / n). A corner outside its map counts as zero: it is
// read from a row of zeros, never from the map times zero, so that Inf and NaN there do no harm.
#pragma once
#include "lanes.h"

namespace LEANDETR_VARIANT {

// The token of a corner outside its map: all bits set.
constexpr int NOWHERE = -1;

// Facts about each of the L * P samples, the same for all queries; padded to whole vectors.
template <class C> struct Samples {
  typedef typename Wide<C>::Whole I;
  int count, padded;
  C *wide, *high;             // sides of the sample's level
  I *width, *height, *start;  // the same, whole, and the level's first token
  I* level;                   // its number
};

// As many samples of one look as a vector has lanes: what one gather needs lies together.
template <class C> struct Cluster {
  typedef typename Wide<C>::Whole I;
  I at[4][LANES<C>];     // tokens of the corners: upper left, upper right, lower left, lower right
  C share[4][LANES<C>];  // how much each counts
  // What follows is for gradients.
  C weight[LANES<C>];                    // attention weight
  C fx[LANES<C>], fy[LANES<C>];          // how far between the corners
  C dx[LANES<C>], dy[LANES<C>];          // as given: locations, or offsets
  C step_x[LANES<C>], step_y[LANES<C>];  // pixels a unit of dx, dy
};

template <class V> inline V within(V x, V low, V high) {
  x = x > low ? x : low;  // NaN becomes low
  return x < high ? x : high;
}

// The largest whole number not above x.
template <class C> inline typename Wide<C>::I whole(Vec<C> x) {
  typedef typename Wide<C>::I I;
  const I cut = __builtin_convertvector(x, I);
  return cut + (__builtin_convertvector(cut, Vec<C>) > x);  // true is -1
}

// How far between the corners. NaN and Inf make NaN, as in grid_sample.
template <class C> inline Vec<C> fraction(Vec<C> given, Vec<C> x, typename Wide<C>::I corner) {
  return x - __builtin_convertvector(corner, Vec<C>) + (given - given);
}

// Shares of the four corners, each times `weight`.
template <class C> inline void share_out(Cluster<C>& to, Vec<C> fx, Vec<C> fy, Vec<C> weight) {
  const Vec<C> bottom = fy * weight, top = (1 - fy) * weight;
  save(to.share[0], 0, (1 - fx) * top);
  save(to.share[1], 0, fx * top);
  save(to.share[2], 0, (1 - fx) * bottom);
  save(to.share[3], 0, fx * bottom);
}

// Fills `at` of the samples of vector number i, which lie in pixels (x, y), 0 in the middle of the
// first; returns the fractions.
template <class C> inline void find_corners(const Samples<C>& all, int i, Vec<C> given_x,
                                            Vec<C> given_y, Cluster<C>& to, Vec<C>& fx,
                                            Vec<C>& fy) {
  typedef typename Wide<C>::I I;
  typedef typename Wide<C>::U U;  // wraps around, so that one comparison does for both ends
  const Vec<C> x = within(given_x, splat(C(-2)), load(all.wide, i) + 1);
  const Vec<C> y = within(given_y, splat(C(-2)), load(all.high, i) + 1);
  const I left = whole<C>(x), top = whole<C>(y);
  fx = fraction<C>(given_x, x, left);
  fy = fraction<C>(given_y, y, top);
  const U width = (U)load(all.width, i), height = (U)load(all.height, i);
  const I off_left = (U)left >= width, off_right = (U)(left + 1) >= width;
  const I off_top = (U)top >= height, off_bottom = (U)(top + 1) >= height;
  const U upper = (U)load(all.start, i) + (U)top * width + (U)left, lower = upper + width;
  save(to.at[0], 0, (I)upper | off_left | off_top);
  save(to.at[1], 0, (I)(upper + 1) | off_right | off_top);
  save(to.at[2], 0, (I)lower | off_left | off_bottom);
  save(to.at[3], 0, (I)(lower + 1) | off_right | off_bottom);
}

}  // namespace LEANDETR_VARIANT
