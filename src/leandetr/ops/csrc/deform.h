// Multi-scale deformable attention: a weighted sum of bilinear samples.
#pragma once
#include "pulling.h"

namespace LEANDETR_VARIANT {

// Sum over samples and corners of share times row, `vectors` long; shares hold all factors.
template <class S, int W, class C>
inline void gather(const Look<C>& look, int count, const S* rows, int row, C* out) {
  if constexpr (W == 0) {
    for (int i = 0; i < row / LANES<C>; ++i) save(out, i, Vec<C>{});
    for (int s = 0; s < count; ++s) {
      for (int i = 0; i < row / LANES<C>; ++i) {
        Vec<C> more = load(out, i);
        for (int c = 0; c < 4; ++c) more += look.share[c][s] * load(rows + look.at[c][s], i);
        save(out, i, more);
      }
    }
  } else {
    constexpr int N = W / LANES<C>;
    Vec<C> upper[N] = {}, lower[N] = {};  // two chains of sums hide the latency of each
    for (int s = 0; s < count; ++s) {
      const S *a = rows + look.at[0][s], *b = rows + look.at[1][s];
      const S *c = rows + look.at[2][s], *d = rows + look.at[3][s];
      for (int i = 0; i < N; ++i) {
        upper[i] += look.share[0][s] * load(a, i);
        lower[i] += look.share[2][s] * load(c, i);
        upper[i] += look.share[1][s] * load(b, i);
        lower[i] += look.share[3][s] * load(d, i);
      }
    }
    for (int i = 0; i < N; ++i) save(out, i, upper[i] + lower[i]);
  }
}

template <class S, int W> struct Deform {
  typedef typename Computed<S>::type C;

  static void forward(Bench<S>& bench, int64_t image, int64_t head, int64_t begin, int64_t end) {
    const Call& call = bench.call;
    const Rows<S> rows = bench.rows(call.value, image, head, bench.values);
    for_each_look<S>(bench, image, head, begin, end, rows, [&](Look<C>& look, int64_t q) {
      for (int i = 0; i < bench.samples.padded / LANES<C>; ++i)
        for (C* share : look.share) save(share, i, load(share, i) * load(look.weight, i));
      gather<S, W>(look, bench.samples.count, rows.first, bench.needs.row, bench.out);
      const int64_t row = (image * call.queries + q) * call.heads + head;
      write(call.output, row * call.width, bench.out, int(call.width));
    });
  }

  static void backward(Bench<S>& bench, int64_t image, int64_t head, int64_t begin, int64_t end) {
    const Call& call = bench.call;
    const Rows<S> rows = bench.rows(call.value, image, head, bench.values);
    C* sums = bench.sums(call.value_grad, image, head, bench.value_sums);
    for_each_look<S>(bench, image, head, begin, end, rows, [&](Look<C>& look, int64_t q) {
      const int64_t row = (image * call.queries + q) * call.heads + head;
      read(bench.grad, call.output, row * call.width, int(call.width));
      spread(bench, look, rows, sums);
      sum_products<C>(bench.products, bench.dots, bench.samples.padded);
      write_weights(bench, look, row);
      for (int i = 0; i < bench.samples.padded / LANES<C>; ++i)
        for (C* dots : bench.dots) save(dots, i, load(dots, i) * load(look.weight, i));
      write_where<C>(bench, look, bench.dots, image, q, head);
    });
    bench.unpack(call.value_grad, image, head, sums);
  }

 private:
  // Compares the gradient with the row at each corner, and adds its share of it there.
  static void spread(Bench<S>& bench, const Look<C> look, const Rows<S> rows, C* sums) {
    constexpr int N = W ? W / LANES<C> : 1;
    const int vectors = W ? N : bench.needs.row / LANES<C>;
    const int padded = bench.samples.padded, count = bench.samples.count;
    const C* grad = bench.grad;
    Vec<C>* products = bench.products;
    Vec<C> kept[N];
    for (int i = 0; i < N; ++i) kept[i] = load(grad, i);
    for (int s = 0; s < count; ++s) {
      for (int c = 0; c < 4; ++c) {
        const int64_t at = look.at[c][s];
        Vec<C> product = {};
        if (at != rows.nowhere) {
          const Vec<C> share = splat(look.share[c][s] * look.weight[s]);
          for (int i = 0; i < vectors; ++i) {
            const Vec<C> pull = W ? kept[W ? i : 0] : load(grad, i);
            product += pull * load(rows.first + at, i);
            save(sums + at, i, load(sums + at, i) + share * pull);
          }
        }
        products[c * padded + s] = product;
      }
    }
  }

  static void write_weights(Bench<S>& bench, const Look<C>& look, int64_t row) {
    const int count = bench.samples.count, padded = bench.samples.padded;
    for (int i = 0; i < padded / LANES<C>; ++i) save(bench.pulls, i, blend(look, bench.dots, i));
    if (bench.call.reference_width) pull_logits(look.weight, bench.pulls, padded);
    write(bench.call.weights_grad, row * count, bench.pulls, count);
  }
};

}  // namespace LEANDETR_VARIANT
