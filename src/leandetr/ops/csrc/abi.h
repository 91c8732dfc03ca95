// The library's C interface: one struct describes a call, whatever the operator.
//
// Letters as in Python: N images, S tokens, Q queries, L levels, M heads, P points, D width.
// All arrays are contiguous. An array that plays no part has a null pointer.
#pragma once
#include <stdint.h>

enum Type { FLOAT32, FLOAT64, BFLOAT16, FLOAT16 };
enum Variant { GENERIC, AVX2, AVX512, VARIANTS };
enum Status { DONE, WRONG_VARIANT, NO_MEMORY, WRONG_SIZE };

struct Array {
  void* data;
  int64_t type;
};

struct Call {
  int64_t variant, threads;
  int64_t images, tokens, queries, heads, width, levels, points;
  int64_t own_levels;       // levels of `where`: L, or 1 when all levels share the offsets
  int64_t reference_width;  // 2 or 4; 0: `where` holds locations and `weights` is no logit
  const int64_t* sides;     // L pairs (height, width)
  Array value, key;         // N S M D; a null key: the value is the key
  Array query;              // N Q M D
  Array where;              // N Q M L P 2
  Array weights;            // N Q M L P
  Array reference;          // N Q L R
  Array output;             // N Q M D; in a backward call the gradient of the output
  Array value_grad, key_grad, query_grad, where_grad, weights_grad;  // like what they belong to
  Array reference_grad;     // M N Q L R: each head's part, to be summed by the caller
};

typedef int (*Operator)(const Call*);

// What every variant has.
struct Operators {
  Operator deform, deform_backward, key_aware, key_aware_backward;
};
