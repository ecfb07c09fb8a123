/* All CPU kernels, as one file for the compiler. block.c is compiled twice, for float32 and for bfloat16 values; all
   arithmetic is float32. */
#include "common.h"
#include "gru.c"
#include "softmax.c"
#include "history.c"
#include "click.c"
#include "top_k.c"
#include "scan.c"

#define T float
#define GET(pointer) READ(pointer)
#define PUT(pointer, value) (AT(pointer) = (value))
#define NAME(name) name##_float32
#include "block.c"

#undef T
#undef GET
#undef PUT
#undef NAME
#define T unsigned short
#define GET(pointer) widen(pointer)
#define PUT(pointer, value) narrow(pointer, value)
#define NAME(name) name##_bfloat16
#include "block.c"
