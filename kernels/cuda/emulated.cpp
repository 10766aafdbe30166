// All kernels as C++, in one file, so that none of them is left out of a library.
#include "any.cu"
#include "bf16.cu"
#include "f16.cu"
#include "f32.cu"

extern "C" const EmulatedKernel* chorus_emulated_kernels() { return EmulatedKernel::first(); }
