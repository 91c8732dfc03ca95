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
  int64_t chunks, next;  // chunks of queries for each image and group of heads
  int status;
};

// Takes (image, heads, chunk) after (image, heads, chunk) until none is left.
template <class S, class Body> void take_turns(Work& work, Body body) {
  const Call& call = *work.call;
  Bench<S> bench(call, work.needs);
  if (!bench.ready()) {
    __atomic_store_n(&work.status, NO_MEMORY, __ATOMIC_RELAXED);
    return;
  }
  const int64_t heads = work.needs.heads, groups = (call.heads + heads - 1) / heads;
  const int64_t all = call.images * groups * work.chunks;
  for (;;) {
    const int64_t task = __atomic_fetch_add(&work.next, 1, __ATOMIC_RELAXED);
    if (task >= all) return;
    const int64_t chunk = task % work.chunks, plane = task / work.chunks,
                  head = plane % groups * heads;
    const int64_t left = call.heads - head;
    body(bench, {plane / groups, head, left < heads ? left : heads,
                 chunk * call.queries / work.chunks, (chunk + 1) * call.queries / work.chunks});
  }
}

enum Kind { DEFORM, DEFORM_BACKWARD, KEY_AWARE, KEY_AWARE_BACKWARD };

template <Kind kind, class S, int W, bool PACKED> void work_on(void* work) {
  Work& all = *static_cast<Work*>(work);
  constexpr bool BACKWARD = kind == KEY_AWARE_BACKWARD;
  typedef KeyAware<S, W, PACKED, true, BACKWARD> Own;
  typedef KeyAware<S, W, PACKED, false, BACKWARD> Shared;
  const bool own_key = all.needs.own_key;
  if constexpr (kind == DEFORM) take_turns<S>(all, Deform<S, W, PACKED>::forward);
  if constexpr (kind == DEFORM_BACKWARD) take_turns<S>(all, Deform<S, W, PACKED>::backward);
  if constexpr (kind == KEY_AWARE) take_turns<S>(all, own_key ? Own::forward : Shared::forward);
  if constexpr (BACKWARD) take_turns<S>(all, own_key ? Own::backward : Shared::backward);
}

// The compiled width that holds `width` numbers; 0: any. Double precision is for checks.
template <class S> constexpr bool has_width(int width) {
  return sizeof(S) == 4 ? width == 32 || width == 64 : sizeof(S) == 2 && width == 32;
}
template <class S> int compiled_width(int64_t width) {
  for (int compiled : {32, 64})
    if (has_width<S>(compiled) && width <= compiled) return compiled;
  return 0;
}

// Heads of an image that one thread works on together: rows of a token lie side by side, so that
// unpacked ones are best read for all heads, but for gradients no two threads may share a row.
inline int64_t group_of_heads(const Call& call, const Needs& needs) {
  if (needs.packed) return 1;
  if (!needs.backward || call.images >= call.threads) return call.heads;
  const int64_t groups = (call.threads + call.images - 1) / call.images;
  return (call.heads + groups - 1) / groups;
}

template <class S> Work prepare(const Call& call, bool backward) {
  typedef typename Computed<S>::type C;
  Work work = {&call, {}, 1, 0, DONE};
  Needs& needs = work.needs;
  const int width = compiled_width<S>(call.width);
  needs.backward = backward;
  needs.own_key = call.key.data;
  needs.row = width ? width : int((call.width + LANES<C> - 1) / LANES<C> * LANES<C>);
  const int64_t corners = call.queries * call.levels * call.points * 4;
  needs.packed = call.width != 32 || call.value.type != TYPE_OF<S> || sizeof(S) == 8 ||
                 corners > WORTH_PACKING * call.tokens;
  needs.heads = int(group_of_heads(call, needs));
  const int64_t planes = call.images * ((call.heads + needs.heads - 1) / needs.heads);
  if (!backward && planes < call.threads) work.chunks = (call.threads + planes - 1) / planes;
  return work;
}

template <Kind kind, class S, int W> void start(Work& work) {
  void (*body)(void*) = work_on<kind, S, W, true>;
  if constexpr (W == 32)
    if (!work.needs.packed) body = work_on<kind, S, W, false>;
  run_on(work.call->threads, body, &work);
}

template <Kind kind, class S> int run(const Call& call) {
  if (call.images * call.heads == 0) return DONE;
  Work work = prepare<S>(call, kind == DEFORM_BACKWARD || kind == KEY_AWARE_BACKWARD);
  const int width = compiled_width<S>(call.width);
  if constexpr (has_width<S>(32))
    if (width == 32) start<kind, S, 32>(work);
  if constexpr (has_width<S>(64))
    if (width == 64) start<kind, S, 64>(work);
  if constexpr (sizeof(S) > 2)
    if (width == 0) start<kind, S, 0>(work);
  return work.status;
}

// Rows of half precision are packed in single precision. Those of bfloat16 stay as they are in the
// usual forward pass, where it is memory that takes the time.
template <Kind kind> int run_stored(const Call* call) {
  if (call->value.type == FLOAT64) return run<kind, double>(*call);
  if constexpr (kind == DEFORM || kind == KEY_AWARE)
    if (call->value.type == BFLOAT16 && call->width == 32) return run<kind, bfloat>(*call);
  return run<kind, float>(*call);
}

}  // namespace LEANDETR_VARIANT

#define JOINED_AGAIN(a, b) a##b
#define JOINED(a, b) JOINED_AGAIN(a, b)
extern const Operators JOINED(leandetr_operators_, LEANDETR_VARIANT) = {
    LEANDETR_VARIANT::run_stored<LEANDETR_VARIANT::DEFORM>,
    LEANDETR_VARIANT::run_stored<LEANDETR_VARIANT::DEFORM_BACKWARD>,
    LEANDETR_VARIANT::run_stored<LEANDETR_VARIANT::KEY_AWARE>,
    LEANDETR_VARIANT::run_stored<LEANDETR_VARIANT::KEY_AWARE_BACKWARD>};
