// Multi-scale deformable attention: a weighted sum of bilinear samples.
#pragma once
#include "pulling.h"

namespace LEANDETR_VARIANT {

// Sum over samples and corners of share times row, N vectors from vector number `from` on.
template <int N, class C, class R>
INLINED void gather_some(const Cluster<C>* look, int count, const R rows, int from, C* out) {
  // A sum has to wait for the one before: so many chains keep the processor busy.
  constexpr int CHAINS = N <= 2 ? 4 : 2;
  Vec<C> chain[CHAINS][N] = {};
  for (int left = count; left > 0; left -= LANES<C>, ++look) {
    const int end = left < LANES<C> ? left : LANES<C>;
    for (int s = 0; s < end; ++s) {
      for (int c = 0; c < 4; ++c) {
        const auto* row = rows.at(look->at[c][s]);
        const Vec<C> share = splat(look->share[c][s]);
        for (int i = 0; i < N; ++i) chain[c % CHAINS][i] += share * load(row, from + i);
      }
    }
  }
  for (int i = 0; i < N; ++i) {
    if (CHAINS == 4) chain[0][i] += chain[2][i], chain[1][i] += chain[3][i];
    save(out, from + i, chain[0][i] + chain[1][i]);
  }
}

// The same for whole rows; W: how long they are, or 0.
template <int W, class C, class R>
inline void gather(const Cluster<C>* look, int count, const R rows, int row, C* out) {
  if constexpr (W) {
    gather_some<W / LANES<C>>(look, count, rows, 0, out);
  } else {
    for (int i = 0; i < row / LANES<C>; ++i) gather_some<1>(look, count, rows, i, out);
  }
}

template <class S, int W, bool PACKED> struct Deform {
  typedef typename Computed<S>::type C;

  static void forward(Bench<S>& bench, const Span& span) {
    const Call& call = bench.call;
    const int width = int(call.width);
    const auto values = RowsOf<S, W, PACKED, false>::read(bench, call.value, span, bench.values);
    for_each_block<C>(bench, span, [&](int64_t first, int looks) {
      for (int j = 0; j < looks; ++j) {
        const Spot spot = span.spot(call, first + j);
        fetch_ahead<C>(bench, span, spot);
        const auto rows = values.of(spot.head - span.head, width);
        C* out = bench.target(call.output, spot.row * width, width, bench.needs.row, bench.out);
        gather<W>(bench.look(j), bench.samples.count, rows, bench.needs.row, out);
        bench.deliver(call.output, spot.row * width, width, out, bench.out);
      }
    });
  }

  static void backward(Bench<S>& bench, const Span& span) {
    const Call& call = bench.call;
    typedef RowsOf<S, W, PACKED, true> Of;
    const int width = int(call.width);
    const auto values = Of::read(bench, call.value, span, bench.values);
    const auto sums = Of::sums(bench, call.value_grad, span, bench.values);
    for_each_block<C>(bench, span, [&](int64_t first, int looks) {
      for (int j = 0; j < looks; ++j) {
        const Spot spot = span.spot(call, first + j);
        fetch_ahead<C>(bench, span, spot);
        const int64_t head = spot.head - span.head;
        const C* grad =
            bench.given(call.output, spot.row * width, width, bench.needs.row, bench.grad);
        const Cluster<C>* look = bench.look(j);
        constexpr int N = W ? W / LANES<C> : 1;
        Vec<C> kept[N];
        for (int i = 0; i < N; ++i) kept[i] = load(grad, i);
        spread<W>(bench, look, values.of(head, width), sums.of(head, width),
                  [=](int, int i) INLINED_HERE { return W ? kept[W ? i : 0] : load(grad, i); });
        pull_weights<C>(bench, look, spot);
        for (int i = 0; i < bench.vectors(); ++i)
          for (C* dots : bench.dots) save(dots, i, load(dots, i) * load(look[i].weight, 0));
        write_where<C>(bench, look, span, spot);
      }
    });
    Of::deliver(bench, call.value_grad, span, sums);
  }
};

}  // namespace LEANDETR_VARIANT
