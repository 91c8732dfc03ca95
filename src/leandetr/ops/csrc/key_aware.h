// Key-aware deformable attention: the weights of the samples come from query and sampled keys.
//
// Nothing is kept beyond one head of one query. When the value is the key, it is gathered once.
#pragma once
#include "deform.h"

namespace LEANDETR_VARIANT {

template <class S, int W, bool OWN_KEY> struct KeyAware {
  typedef typename Computed<S>::type C;

  static void forward(Bench<S>& bench, int64_t image, int64_t head, int64_t begin, int64_t end) {
    const Call& call = bench.call;
    const Rows<S> values = bench.rows(call.value, image, head, bench.values);
    const Rows<S> keys = OWN_KEY ? bench.rows(call.key, image, head, bench.keys) : values;
    for_each_look<S>(bench, image, head, begin, end, values, [&](Look<C>& look, int64_t q) {
      const int64_t row = (image * call.queries + q) * call.heads + head;
      const int padded = bench.samples.padded, count = bench.samples.count;
      read(bench.query, call.query, row * call.width, int(call.width));
      compare(bench, look, keys);
      const Vec<C> scale = splat(C(1) / C(sqrt(double(call.width))));
      for (int i = 0; i < padded / LANES<C>; ++i)
        save(bench.logits, i, scale * sums<C>(bench.products + i * LANES<C>));
      softmax(bench.logits, count, padded);
      if (OWN_KEY) {
        for (int i = 0; i < padded / LANES<C>; ++i)
          for (C* share : look.share) save(share, i, load(share, i) * load(bench.logits, i));
        gather<S, W>(look, count, values.first, bench.needs.row, bench.out);
      } else {
        weigh(bench);
      }
      write(call.output, row * call.width, bench.out, int(call.width));
    });
  }

  static void backward(Bench<S>& bench, int64_t image, int64_t head, int64_t begin, int64_t end) {
    const Call& call = bench.call;
    const Rows<S> values = bench.rows(call.value, image, head, bench.values);
    const Rows<S> keys = OWN_KEY ? bench.rows(call.key, image, head, bench.keys) : values;
    C* value_sums = bench.sums(call.value_grad, image, head, bench.value_sums);
    C* key_sums = value_sums;
    if (OWN_KEY) key_sums = bench.sums(call.key_grad, image, head, bench.key_sums);
    for_each_look<S>(bench, image, head, begin, end, values, [&](Look<C>& look, int64_t q) {
      const int64_t row = (image * call.queries + q) * call.heads + head;
      read(bench.query, call.query, row * call.width, int(call.width));
      read(bench.grad, call.output, row * call.width, int(call.width));
      compare_both(bench, look, keys, values);
      weigh_pulls(bench, look);
      spread(bench, look, values.nowhere, value_sums, key_sums);
      for (int i = 0; i < bench.samples.padded / LANES<C>; ++i)
        for (C* share : look.share) save(share, i, load(share, i) * load(bench.pulls, i));
      gather<S, W>(look, bench.samples.count, keys.first, bench.needs.row, bench.out);
      write(call.query_grad, row * call.width, bench.out, int(call.width));
      write_where<C>(bench, look, bench.dots, image, q, head);
    });
    bench.unpack(call.value_grad, image, head, value_sums);
    if (OWN_KEY) bench.unpack(call.key_grad, image, head, key_sums);
  }

 private:
  static int vectors(const Bench<S>& bench) {
    return W ? W / LANES<C> : bench.needs.row / LANES<C>;
  }

  // Products of the query and each sampled key; the samples stay for `weigh`.
  static void compare(Bench<S>& bench, const Look<C> look, const Rows<S> keys) {
    const C* query = bench.query;
    Vec<C>* products = bench.products;
    C* mixed = bench.mixed;
    const int count = bench.samples.count, row = bench.needs.row;
    for (int s = 0; s < count; ++s, mixed += row) {
      Vec<C> product = {};
      for (int i = 0; i < vectors(bench); ++i) {
        Vec<C> upper = look.share[0][s] * load(keys.first + look.at[0][s], i);
        Vec<C> lower = look.share[2][s] * load(keys.first + look.at[2][s], i);
        upper += look.share[1][s] * load(keys.first + look.at[1][s], i);
        lower += look.share[3][s] * load(keys.first + look.at[3][s], i);
        upper += lower;
        product += load(query, i) * upper;
        if (!OWN_KEY) save(mixed, i, upper);
      }
      products[s] = product;
    }
  }

  // The sum of samples, each as much as its key fits.
  static void weigh(Bench<S>& bench) {
    for (int i = 0; i < vectors(bench); ++i) {
      Vec<C> even = {}, odd = {};
      for (int s = 0; s < bench.samples.count; s += 2)
        even += bench.logits[s] * load(bench.mixed + s * bench.needs.row, i);
      for (int s = 1; s < bench.samples.count; s += 2)
        odd += bench.logits[s] * load(bench.mixed + s * bench.needs.row, i);
      save(bench.out, i, even + odd);
    }
  }

  // dots: query and key at each corner; more_dots: gradient and value.
  static void compare_both(Bench<S>& bench, const Look<C> look, const Rows<S> keys,
                           const Rows<S> values) {
    const int padded = bench.samples.padded, count = bench.samples.count;
    const C *query = bench.query, *grad = bench.grad;
    Vec<C>*fits = bench.products, *pulls = bench.more_products;
    for (int s = 0; s < count; ++s) {
      for (int c = 0; c < 4; ++c) {
        Vec<C> fit = {}, pull = {};
        for (int i = 0; i < vectors(bench); ++i) {
          fit += load(query, i) * load(keys.first + look.at[c][s], i);
          pull += load(grad, i) * load(values.first + look.at[c][s], i);
        }
        fits[c * padded + s] = fit;
        pulls[c * padded + s] = pull;
      }
    }
    sum_products<C>(bench.products, bench.dots, padded);
    sum_products<C>(bench.more_products, bench.more_dots, padded);
  }

  // logits: weights of the samples; pulls: gradients of the products; dots: pulls at corners.
  static void weigh_pulls(Bench<S>& bench, const Look<C>& look) {
    const int padded = bench.samples.padded;
    const Vec<C> scale = splat(C(1) / C(sqrt(double(bench.call.width))));
    for (int i = 0; i < padded / LANES<C>; ++i) {
      save(bench.logits, i, scale * blend(look, bench.dots, i));
      save(bench.pulls, i, blend(look, bench.more_dots, i));
    }
    softmax(bench.logits, bench.samples.count, padded);
    pull_logits(bench.logits, bench.pulls, padded);
    for (int i = 0; i < padded / LANES<C>; ++i) {
      const Vec<C> pull = scale * load(bench.pulls, i), weight = load(bench.logits, i);
      save(bench.pulls, i, pull);
      for (int c = 0; c < 4; ++c)
        save(bench.dots[c], i, pull * load(bench.dots[c], i) + weight * load(bench.more_dots[c], i));
    }
  }

  // Adds to each corner its share of the gradients of key and value.
  static void spread(Bench<S>& bench, const Look<C> look, int64_t nowhere, C* value_sums,
                     C* key_sums) {
    const int count = bench.samples.count;
    const C *query = bench.query, *grad = bench.grad, *pulls = bench.pulls, *weights = bench.logits;
    for (int s = 0; s < count; ++s) {
      for (int c = 0; c < 4; ++c) {
        const int64_t at = look.at[c][s];
        if (at == nowhere) continue;
        const Vec<C> pull = splat(look.share[c][s] * pulls[s]);
        const Vec<C> weight = splat(look.share[c][s] * weights[s]);
        for (int i = 0; i < vectors(bench); ++i) {
          const Vec<C> by_key = pull * load(query, i), by_value = weight * load(grad, i);
          if (OWN_KEY) {
            save(key_sums + at, i, load(key_sums + at, i) + by_key);
            save(value_sums + at, i, load(value_sums + at, i) + by_value);
          } else {
            save(value_sums + at, i, load(value_sums + at, i) + (by_key + by_value));
          }
        }
      }
    }
  }
};

}  // namespace LEANDETR_VARIANT
