// The kernels of weights in f32: a module of its own, so that a driver compiles no other types than a model has.
#include "of_type.cuh"

OF_TYPE(f32, float)
OF_FEW_ROWS(f32, float, 8)
