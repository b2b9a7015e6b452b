// The threads of the OpenMP runtime that torch uses.
#pragma once

// What GCC makes of `#pragma omp parallel`, called by name: Clang would make calls of its own runtime, libomp, of it,
// and a process that has loaded torch's libgomp would then have two pools of threads that wait for work by spinning.
// libomp has this function, too, for the programs that GCC compiled.
extern "C" void GOMP_parallel(void (*function)(void*), void* argument, unsigned threads, unsigned flags);

namespace extrap::cpu {

// Calls body() on `threads` threads, this one among them, and waits for all of them. body() must not throw.
template <class Body>
void on_threads(int threads, const Body& body) {
  void* argument = const_cast<Body*>(&body);
  GOMP_parallel([](void* b) { (*static_cast<const Body*>(b))(); }, argument, static_cast<unsigned>(threads), 0);
}

}  // namespace extrap::cpu
