// The kernels of weights in f16: a module of its own, so that a driver compiles no other types than a model has.
#include "of_type.cuh"

OF_TYPE(f16, F16)
