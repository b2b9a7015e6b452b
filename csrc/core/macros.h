// Marks functions that run on the host and on the device, and loops to unroll in both.
#pragma once

// Functions and templates of csrc/core and csrc/cpu live in an inline namespace that names the instruction set they are
// compiled for, so that objects for different ones share no code, however it is inlined and linked. Plain data stays
// outside of it: it is the same for all.
#if !defined(EXTRAP_ISA)
#define EXTRAP_ISA baseline
#endif

#if defined(__CUDACC__)
#define EXTRAP_HD __host__ __device__ __forceinline__
// Constants in memory are not kept in registers beyond this point.
#define EXTRAP_REREAD_MEMORY() asm volatile("" ::: "memory")
// For what runs rarely and would take registers from what runs often.
#define EXTRAP_HD_OUT_OF_LINE __host__ __device__ __noinline__
#define EXTRAP_UNROLL _Pragma("unroll")
#define EXTRAP_NO_UNROLL _Pragma("unroll 1")
#else
#define EXTRAP_HD inline __attribute__((always_inline))
#define EXTRAP_HD_OUT_OF_LINE EXTRAP_HD
#define EXTRAP_REREAD_MEMORY()
#if defined(__clang__)
#define EXTRAP_UNROLL _Pragma("unroll")
#else
#define EXTRAP_UNROLL _Pragma("GCC unroll 16")
#endif
#define EXTRAP_NO_UNROLL
#endif
