#ifndef TESSERA_OPS_OPS_H_
#define TESSERA_OPS_OPS_H_

#include "ops/algebra.h"
#include "ops/attention.h"
#include "ops/convolution.h"
#include "ops/ends.h"
#include "ops/experts.h"
#include "ops/noise.h"
#include "ops/norm.h"
#include "ops/pointwise.h"
#include "ops/product.h"
#include "ops/projection.h"
#include "ops/rows.h"
#include "ops/scan.h"
#include "ops/sequence.h"
#include "ops/shape.h"
#include "ops/time.h"

// The vocabulary of block writers: every differentiable operation, on Vars, a header a family.
// Activations are [B,T,C] of the context's compute type, parameters and states fp32. Equations,
// papers and the meaning of each argument stand in kernels/<family>/x.h of the same name. A call
// with wrong shapes is a programmer's mistake and stops the program with the shapes.

#endif  // TESSERA_OPS_OPS_H_
