// Marks functions that run on the host and on the device, and loops to unroll in both.
#pragma once

#if defined(__CUDACC__)
#define EXTRAP_HD __host__ __device__ __forceinline__
// Constants in memory are not kept in registers beyond this point.
#define EXTRAP_REREAD_MEMORY() asm volatile("" ::: "memory")
// For what runs rarely and would take registers from what runs often.
#define EXTRAP_HD_OUT_OF_LINE __host__ __device__ __noinline__
#define EXTRAP_UNROLL _Pragma("unroll")
#define EXTRAP_NO_UNROLL _Pragma("unroll 1")
#else
// Inlined without exception: objects built for several instruction sets must not share an out-of-line copy.
#define EXTRAP_HD inline __attribute__((always_inline))
#define EXTRAP_HD_OUT_OF_LINE EXTRAP_HD
#define EXTRAP_REREAD_MEMORY()
#define EXTRAP_UNROLL _Pragma("GCC unroll 16")
#define EXTRAP_NO_UNROLL
#endif
