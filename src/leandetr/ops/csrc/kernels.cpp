// The operators of one variant. This file is compiled once for each instruction set, into a
// namespace of its own: one inline function shared by two sets would crash the older machine.
#include "key_aware.h"
#include "pool.h"

namespace LEANDETR_VARIANT {

// Corners read per token below which packing a head costs more than it saves.
constexpr int64_t WORTH_PACKING = 8;

struct Work {
  const Call* call;
  Needs needs;
  int64_t chunks, next;  // chunks of queries for each image and head
  int status;
};

// Takes (image, head, chunk) after (image, head, chunk) until none is left.
template <class S, class Body> void take_turns(Work& work, Body body) {
  const Call& call = *work.call;
  Bench<S> bench(call, work.needs);
  if (!bench.ready()) {
    __atomic_store_n(&work.status, NO_MEMORY, __ATOMIC_RELAXED);
    return;
  }
  const int64_t all = call.images * call.heads * work.chunks;
  for (;;) {
    const int64_t task = __atomic_fetch_add(&work.next, 1, __ATOMIC_RELAXED);
    if (task >= all) return;
    const int64_t chunk = task % work.chunks, plane = task / work.chunks;
    body(bench, plane / call.heads, plane % call.heads, chunk * call.queries / work.chunks,
         (chunk + 1) * call.queries / work.chunks);
  }
}

enum Kind { DEFORM, DEFORM_BACKWARD, KEY_AWARE, KEY_AWARE_BACKWARD };

template <Kind kind, class S, int W> void work_on(void* work) {
  Work& all = *static_cast<Work*>(work);
  const bool own_key = all.call->key.data;
  if constexpr (kind == DEFORM) {
    take_turns<S>(all, Deform<S, W>::forward);
  } else if constexpr (kind == DEFORM_BACKWARD) {
    take_turns<S>(all, Deform<S, W>::backward);
  } else if constexpr (kind == KEY_AWARE) {
    take_turns<S>(all, own_key ? KeyAware<S, W, true>::forward : KeyAware<S, W, false>::forward);
  } else {
    take_turns<S>(all, own_key ? KeyAware<S, W, true>::backward : KeyAware<S, W, false>::backward);
  }
}

// The compiled width that holds `width` numbers; 0: any. Double precision is for checks, half
// precision for the usual width.
template <class S> constexpr bool has_width(int width) {
  return sizeof(S) != 8 && (width == 32 || (sizeof(S) == 4 && LANES<float> > 4));
}
template <class S> int compiled_width(int64_t width) {
  for (int compiled : {16, 32, 64})
    if (has_width<S>(compiled) && width <= compiled) return compiled;
  return 0;
}

template <class S> Work prepare(const Call& call, bool backward) {
  typedef typename Computed<S>::type C;
  Work work = {&call, {}, 1, 0, DONE};
  const int width = compiled_width<S>(call.width);
  work.needs.backward = backward;
  work.needs.own_key = call.key.data;
  work.needs.row = width ? width : int((call.width + LANES<C> - 1) / LANES<C> * LANES<C>);
  const int64_t planes = call.images * call.heads;
  if (!backward && planes < call.threads) work.chunks = (call.threads + planes - 1) / planes;
  const int64_t corners = call.queries / work.chunks * call.levels * call.points * 4;
  work.needs.packed = work.needs.row != call.width || work.needs.own_key ||
                      (backward && sizeof(S) != sizeof(C)) || corners > WORTH_PACKING * call.tokens;
  return work;
}

template <Kind kind, class S> int run(const Call& call) {
  if (call.images * call.heads == 0) return DONE;
  Work work = prepare<S>(call, kind == DEFORM_BACKWARD || kind == KEY_AWARE_BACKWARD);
  if (!work.needs.packed && work.needs.backward) {
    const int64_t numbers = call.images * call.tokens * call.heads * call.width;
    memset(call.value_grad.data, 0, numbers * sizeof(S));
  }
  const int width = compiled_width<S>(call.width);
  if (width == 0) run_on(call.threads, work_on<kind, S, 0>, &work);
  if constexpr (has_width<S>(16))
    if (width == 16) run_on(call.threads, work_on<kind, S, 16>, &work);
  if constexpr (has_width<S>(32))
    if (width == 32) run_on(call.threads, work_on<kind, S, 32>, &work);
  if constexpr (has_width<S>(64))
    if (width == 64) run_on(call.threads, work_on<kind, S, 64>, &work);
  return work.status;
}

template <Kind kind> int run_stored(const Call* call) {
  switch (call->value.type) {
    case FLOAT32: return run<kind, float>(*call);
    case FLOAT64: return run<kind, double>(*call);
    case BFLOAT16: return run<kind, bfloat>(*call);
    default: return run<kind, half>(*call);
  }
}

}  // namespace LEANDETR_VARIANT

#define JOINED_AGAIN(a, b) a##b
#define JOINED(a, b) JOINED_AGAIN(a, b)
extern const Operators JOINED(leandetr_operators_, LEANDETR_VARIANT) = {
    LEANDETR_VARIANT::run_stored<LEANDETR_VARIANT::DEFORM>,
    LEANDETR_VARIANT::run_stored<LEANDETR_VARIANT::DEFORM_BACKWARD>,
    LEANDETR_VARIANT::run_stored<LEANDETR_VARIANT::KEY_AWARE>,
    LEANDETR_VARIANT::run_stored<LEANDETR_VARIANT::KEY_AWARE_BACKWARD>};
