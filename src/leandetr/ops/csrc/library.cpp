// What Python calls: checks a call, picks the variant, and lends it PyTorch's threads.
#include <pthread.h>

#include "abi.h"
#include "pool.h"

#if defined(__x86_64__)
extern const Operators leandetr_operators_avx512, leandetr_operators_avx2;
#endif
extern const Operators leandetr_operators_generic;

// GCC's entry to its OpenMP threads; a second pool of our own would fight PyTorch's for the cores.
typedef void (*Parallel)(void (*body)(void*), void* data, unsigned threads, unsigned flags);
static Parallel parallel = nullptr;

// The threads of a pool do not survive a fork: the child would wait for them for ever.
static void stay_alone() { parallel = nullptr; }

void run_on(int64_t threads, void (*body)(void*), void* data) {
  if (threads > 1 && parallel)
    parallel(body, data, unsigned(threads), 0);
  else
    body(data);
}

static const Operators* operators(int64_t variant) {
  switch (variant) {
    case GENERIC: return &leandetr_operators_generic;
#if defined(__x86_64__)
    case AVX2: return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                      __builtin_cpu_supports("bmi2") ? &leandetr_operators_avx2 : nullptr;
    case AVX512: return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                        __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
                        __builtin_cpu_supports("avx512vl") ? &leandetr_operators_avx512 : nullptr;
#endif
    default: return nullptr;
  }
}

// Token numbers are 32 bits wide, numbers of elements 64.
static bool fits(const Call& call) {
  int64_t tokens = 0;
  for (int64_t l = 0; l < call.levels; ++l) {
    const int64_t high = call.sides[2 * l], wide = call.sides[2 * l + 1];
    if (high < 0 || wide < 0 || high > 1 << 24 || wide > 1 << 24) return false;
    tokens += high * wide;
  }
  return tokens == call.tokens && tokens < int64_t(1) << 31 && call.width > 0 &&
         call.width < 1 << 16 && call.points > 0 && call.levels > 0 &&
         call.levels * call.points < 1 << 16;
}

static int answer(const Call* call, Operator Operators::*which) {
  const Operators* chosen = operators(call->variant);
  if (!chosen) return WRONG_VARIANT;
  if (!fits(*call)) return WRONG_SIZE;
  return (chosen->*which)(call);
}

#define EXPORTED __attribute__((visibility("default")))

extern "C" {
// Raised whenever `Call` or a function changes.
EXPORTED int leandetr_version() { return 1; }
EXPORTED int leandetr_runs(int variant) { return operators(variant) != nullptr; }
EXPORTED void leandetr_use_threads(Parallel of_pytorch) {
  if (!parallel) pthread_atfork(nullptr, nullptr, stay_alone);
  parallel = of_pytorch;
}
EXPORTED int leandetr_deform_attn(const Call* call) { return answer(call, &Operators::deform); }
EXPORTED int leandetr_deform_attn_backward(const Call* call) {
  return answer(call, &Operators::deform_backward);
}
EXPORTED int leandetr_key_aware_attn(const Call* call) { return answer(call, &Operators::key_aware); }
EXPORTED int leandetr_key_aware_attn_backward(const Call* call) {
  return answer(call, &Operators::key_aware_backward);
}
}
