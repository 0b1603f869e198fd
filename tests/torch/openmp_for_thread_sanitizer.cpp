// Tells the thread sanitizer of OpenMP's fork and join. It does not see them by itself, since the
// OpenMP library that PyTorch brings is not instrumented, and would take all that a region does for
// a race with all that is done before and after it. Nothing else in it is told or suppressed: two
// threads of one region race as ever.
//
// A program's functions come before those of its libraries. So this one is called wherever a region
// begins: in spgrad, in the tests, and in PyTorch itself.
#include <dlfcn.h>
#include <sanitizer/tsan_interface.h>

namespace {

struct Region {
  void (*body)(void*);
  void* data;
  char fork, join;  // their addresses are what the sanitizer knows the two events by
};

void run_body(void* argument) {
  auto* region = static_cast<Region*>(argument);
  __tsan_acquire(&region->fork);
  region->body(region->data);
  __tsan_release(&region->join);
}

}  // namespace

extern "C" [[gnu::visibility("default")]] void GOMP_parallel(void (*body)(void*), void* data,
                                                             unsigned threads, unsigned flags) {
  static const auto parallel =
      reinterpret_cast<decltype(&GOMP_parallel)>(dlsym(RTLD_NEXT, "GOMP_parallel"));
  Region region{body, data, 0, 0};
  __tsan_release(&region.fork);
  parallel(&run_body, &region, threads, flags);
  __tsan_acquire(&region.join);
}
