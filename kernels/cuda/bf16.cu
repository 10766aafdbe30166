// The kernels of weights in bf16: a module of its own, so that a driver compiles no other types than a model has.
#include "of_type.cuh"

OF_TYPE(bf16, Bf16)
