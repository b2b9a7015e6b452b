// The threads of the OpenMP runtime that torch uses.
#pragma once

#if defined(__SANITIZE_THREAD__)
#include <sanitizer/tsan_interface.h>
#endif

// What GCC makes of `#pragma omp parallel`, called by name: Clang would make calls of its own runtime, libomp, of it,
// and a process that has loaded torch's libgomp would then have two pools of threads that wait for work by spinning.
// libomp has this function, too, for the programs that GCC compiled.
extern "C" void GOMP_parallel(void (*function)(void*), void* argument, unsigned threads, unsigned flags);

namespace extrap::cpu {

// For ThreadSanitizer, which does not see into libgomp: what a thread does before release() comes before what another
// one does after acquire() of the same object.
inline void release([[maybe_unused]] void* object) {
#if defined(__SANITIZE_THREAD__)
  __tsan_release(object);
#endif
}
inline void acquire([[maybe_unused]] void* object) {
#if defined(__SANITIZE_THREAD__)
  __tsan_acquire(object);
#endif
}

// Calls body() on `threads` threads, this one among them, and waits for all of them. body() must not throw.
template <class Body>
void on_threads(int threads, const Body& body) {
  void* argument = const_cast<Body*>(&body);
  release(argument);
  GOMP_parallel(
      [](void* b) {
        acquire(b);
        (*static_cast<const Body*>(b))();
        release(b);
      },
      argument, static_cast<unsigned>(threads), 0);
  acquire(argument);
}

}  // namespace extrap::cpu
