// Marks functions that run on the host and on the device.
#pragma once

#if defined(__CUDACC__)
#define EXTRAP_HD __host__ __device__ __forceinline__
#else
// Inlined without exception: objects built for several instruction sets must not share an out-of-line copy.
#define EXTRAP_HD inline __attribute__((always_inline))
#endif
