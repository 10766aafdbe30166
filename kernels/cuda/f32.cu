// The kernels of weights in f32: a module of its own, so that a driver compiles no other types than a model has.
#include "of_type.cuh"

OF_TYPE(f32, float)
OF_FEW_ROWS(f32, float, 8, 256, 1)
// Three blocks of a multiprocessor have twelve warps, as many as a large layer gives it; a thread has 168 registers then.
OF_FEW_ROWS(f32, float, 16, 128, 3)
