// Key-aware deformable attention: the weights of the samples come from query and sampled keys.
//
// Nothing is kept beyond a block of looks. When the value is the key, it is gathered once.
#pragma once
#include "deform.h"

namespace LEANDETR_VARIANT {

template <class S, int W, bool PACKED, bool OWN_KEY, bool BACKWARD> struct KeyAware {
  typedef typename Computed<S>::type C;
  typedef RowsOf<S, W, PACKED, BACKWARD> Of;
  typedef typename Of::Read Read;

  static void forward(Bench<S>& bench, const Span& span) {
    const Call& call = bench.call;
    const int width = int(call.width), padded = bench.samples.padded;
    const Read values = Of::read(bench, call.value, span, bench.values);
    const Read keys = OWN_KEY ? Of::read(bench, call.key, span, bench.keys) : values;
    for_each_block<C>(bench, span, [&](int64_t first, int looks) {
      compare_block(bench, span, keys, first, looks);
      for (int j = 0; j < looks; ++j)
        softmax(bench.logits + j * padded, bench.samples.count, padded);
      for (int j = 0; j < looks; ++j) {
        const Spot spot = span.spot(call, first + j);
        C* out = bench.target(call.output, spot.row * width, width, bench.needs.row, bench.out);
        if (OWN_KEY) {
          weigh_shares(bench, j);
          gather<W>(bench.look(j), bench.samples.count, values.of(spot.head - span.head, width),
                    bench.needs.row, out);
        } else {
          weigh(bench, bench.logits + j * padded, j, out);
        }
        bench.deliver(call.output, spot.row * width, width, out, bench.out);
      }
    });
  }

  static void backward(Bench<S>& bench, const Span& span) {
    const Call& call = bench.call;
    const int width = int(call.width), padded = bench.samples.padded;
    const Read values = Of::read(bench, call.value, span, bench.values);
    const Read keys = OWN_KEY ? Of::read(bench, call.key, span, bench.keys) : values;
    const auto value_sums = Of::sums(bench, call.value_grad, span, bench.values);
    auto key_sums = value_sums;
    if (OWN_KEY) key_sums = Of::sums(bench, call.key_grad, span, bench.keys);
    for_each_block<C>(bench, span, [&](int64_t first, int looks) {
      compare_block(bench, span, keys, first, looks);
      for (int j = 0; j < looks; ++j) {
        const Spot spot = span.spot(call, first + j);
        const C* grad =
            bench.given(call.output, spot.row * width, width, bench.needs.row, bench.grad);
        pull_samples(bench, values.of(spot.head - span.head, width), grad, j);
      }
      for (int j = 0; j < looks; ++j) pull_products(bench, j);
      for (int j = 0; j < looks; ++j) {
        const Spot spot = span.spot(call, first + j);
        const int64_t head = spot.head - span.head;
        C* out = bench.target(call.query_grad, spot.row * width, width, bench.needs.row, bench.out);
        weigh(bench, bench.pulls + j * padded, j, out);
        bench.deliver(call.query_grad, spot.row * width, width, out, bench.out);
        spread_both(bench, spot, j, keys.of(head, width), values.of(head, width),
                    key_sums.of(head, width), value_sums.of(head, width));
        write_where<C>(bench, bench.look(j), span, spot);
      }
    });
    Of::deliver(bench, call.value_grad, span, value_sums);
    if (OWN_KEY) Of::deliver(bench, call.key_grad, span, key_sums);
  }

 private:
  static constexpr int N = W ? W / LANES<C> : 1;
  static int vectors_of(const Bench<S>& bench) { return W ? N : bench.needs.row / LANES<C>; }
  static C* mixed(const Bench<S>& bench, int j) {
    return bench.mixed + int64_t(j) * bench.samples.padded * bench.needs.row;
  }
  static C scale(const Bench<S>& bench) { return C(1) / C(sqrt(double(bench.call.width))); }

  // One sample of the rows, as far as its corners are known: read once for all its vectors.
  struct Mix {
    decltype(Read().at(0)) row[4];
    Vec<C> share[4];
    INLINED Mix(const Cluster<C>& k, int lane, const Read& rows) {
      UNROLLED
      for (int c = 0; c < 4; ++c) {
        row[c] = rows.at(k.at[c][lane]);
        share[c] = splat(k.share[c][lane]);
      }
    }
    INLINED Vec<C> operator[](int i) const {
      const Vec<C> upper = share[0] * load(row[0], i) + share[1] * load(row[1], i);
      const Vec<C> lower = share[2] * load(row[2], i) + share[3] * load(row[3], i);
      return upper + lower;
    }
  };

  // Logits of the samples of each look; the sampled keys stay, if need be.
  static void compare_block(Bench<S>& bench, const Span& span, const Read& keys, int64_t first,
                            int looks) {
    const Call& call = bench.call;
    const int width = int(call.width), row = bench.needs.row;
    const Vec<C> factor = splat(scale(bench));
    for (int j = 0; j < looks; ++j) {
      const Spot spot = span.spot(call, first + j);
      fetch_ahead<C>(bench, span, spot);
      const C* query =
          bench.given(call.query, spot.row * width, width, bench.needs.row, bench.query);
      const Read rows = keys.of(spot.head - span.head, width);
      const int vectors = vectors_of(bench);
      C *samples = mixed(bench, j), *logits = bench.logits + j * bench.samples.padded;
      constexpr bool keep = !OWN_KEY || BACKWARD;
      sum_lanes<1>(bench.look(j), bench.samples.count, &logits,
                   [=](const Cluster<C>& k, int lane, int s, Vec<C>* product) INLINED_HERE {
                     const Mix mix(k, lane, rows);
                     Vec<C> kept[N], fit = {};
                     for (int i = 0; i < N; ++i) kept[i] = mix[i];
                     C* to = samples + int64_t(s) * (W ? W : row);
                     for (int i = 0; i < vectors; ++i) {
                       const Vec<C> sample = W ? kept[W ? i : 0] : mix[i];
                       fit += load(query, i) * sample;
                       if (keep) save(to, i, sample);
                     }
                     *product = fit;
                   });
      for (int i = 0; i < bench.vectors(); ++i) save(logits, i, load(logits, i) * factor);
    }
  }

  // The sum of samples, each with its factor.
  static void weigh(const Bench<S>& bench, const C* factors, int j, C* out) {
    const C* samples = mixed(bench, j);
    const int64_t row = W ? W : bench.needs.row;
    const int count = bench.samples.count;
    for (int from = 0; from < vectors_of(bench); from += N) {
      Vec<C> even[N] = {}, odd[N] = {};
      const C* sample = samples + from * LANES<C>;
      for (int s = 0; s + 1 < count; s += 2, sample += 2 * row)
        for (int i = 0; i < N; ++i) {
          even[i] += factors[s] * load(sample, i);
          odd[i] += factors[s + 1] * load(sample + row, i);
        }
      for (int i = 0; i < N; ++i) {
        if (count % 2) even[i] += factors[count - 1] * load(sample, i);
        save(out, from + i, even[i] + odd[i]);
      }
    }
  }

  static void weigh_shares(const Bench<S>& bench, int j) {
    Cluster<C>* look = bench.look(j);
    for (int i = 0; i < bench.vectors(); ++i)
      for (auto& share : look[i].share)
        save(share, 0, load(share, 0) * load(bench.logits + j * bench.samples.padded, i));
  }

  // Products of the gradient and the sampled values.
  static void pull_samples(Bench<S>& bench, const Read rows, const C* grad, int j) {
    const C* samples = mixed(bench, j);
    C* pulls = bench.pulls + j * bench.samples.padded;
    const int row = bench.needs.row, vectors = vectors_of(bench);
    sum_lanes<1>(bench.look(j), bench.samples.count, &pulls,
                 [=](const Cluster<C>& k, int lane, int s, Vec<C>* product) INLINED_HERE {
                   Vec<C> pull = {};
                   if constexpr (OWN_KEY) {
                     const Mix mix(k, lane, rows);
                     for (int i = 0; i < vectors; ++i) pull += load(grad, i) * mix[i];
                   } else {
                     const C* sample = samples + int64_t(s) * (W ? W : row);
                     for (int i = 0; i < vectors; ++i) pull += load(grad, i) * load(sample, i);
                   }
                   *product = pull;
                 });
  }

  // logits become the weights of the samples; pulls the gradients of the products.
  static void pull_products(Bench<S>& bench, int j) {
    const int padded = bench.samples.padded;
    C *logits = bench.logits + j * padded, *pulls = bench.pulls + j * padded;
    softmax(logits, bench.samples.count, padded);
    pull_logits(logits, pulls, padded);
    for (int i = 0; i < bench.vectors(); ++i) save(pulls, i, load(pulls, i) * splat(scale(bench)));
  }

  // Adds to each corner its share of the gradients of key and value.
  template <class Sums> static void spread_both(Bench<S>& bench, const Spot& spot, int j,
                                                const Read keys, const Read values,
                                                const Sums key_sums, const Sums value_sums) {
    const Call& call = bench.call;
    const int width = int(call.width), padded = bench.samples.padded;
    const C* query = bench.given(call.query, spot.row * width, width, bench.needs.row, bench.query);
    const C* grad = bench.given(call.output, spot.row * width, width, bench.needs.row, bench.grad);
    const C *weights = bench.logits + j * padded, *pulls = bench.pulls + j * padded;
    const auto by_key = [=](int s, int i) INLINED_HERE { return pulls[s] * load(query, i); };
    const auto by_value = [=](int s, int i) INLINED_HERE { return weights[s] * load(grad, i); };
    const int vectors = vectors_of(bench);
    if (!OWN_KEY) {
      spread<W>(bench, bench.look(j), values, value_sums,
                [=](int s, int i) INLINED_HERE { return by_key(s, i) + by_value(s, i); });
      return;
    }
    sum_lanes<4>(bench.look(j), bench.samples.count, bench.dots,
                 [=](const Cluster<C>& k, int lane, int s, Vec<C>* dots) INLINED_HERE {
                   Vec<C> asks[N], pays[N];
                   for (int i = 0; i < N; ++i) asks[i] = by_key(s, i), pays[i] = by_value(s, i);
                   for (int c = 0; c < 4; ++c) {
                     const auto at = k.at[c][lane];
                     const auto *key = keys.at(at), *value = values.at(at);
                     C *to_key = key_sums.at(at), *to_value = value_sums.at(at);
                     const Vec<C> share = splat(k.share[c][lane]);
                     Vec<C> dot = {};
                     for (int i = 0; i < vectors; ++i) {
                       const Vec<C> ask = W ? asks[W ? i : 0] : by_key(s, i);
                       const Vec<C> pay = W ? pays[W ? i : 0] : by_value(s, i);
                       dot += ask * load(key, i) + pay * load(value, i);
                       save(to_key, i, load(to_key, i) + share * ask);
                       save(to_value, i, load(to_value, i) + share * pay);
                     }
                     dots[c] = dot;
                   }
                 });
    forget_outside<C>(bench, bench.look(j));
  }
};

}  // namespace LEANDETR_VARIANT
