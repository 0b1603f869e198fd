// Lets what is built on a newer system run with GNU libc 2.28, as PyTorch's own wheels do.
// Functions that have moved into another of its libraries since, or got a second version, are asked
// for in the version that all have: the linker sends the calls of the whole library here (--wrap).

#include <dlfcn.h>
#include <pthread.h>

#if defined(__x86_64__)
#define SPGRAD_FIRST "GLIBC_2.2.5"
#define SPGRAD_FIRST_OF_DLINFO "GLIBC_2.3.3"
#elif defined(__aarch64__)
#define SPGRAD_FIRST "GLIBC_2.17"
#define SPGRAD_FIRST_OF_DLINFO SPGRAD_FIRST
#else
#error "SPGRAD_GLIBC_2_28 is for x86-64 and AArch64"
#endif

#define SPGRAD_WRAP(version, result, name, parameters, arguments) \
  __asm__(".symver first_" #name "," #name "@" version);          \
  result first_##name parameters;                                 \
  result __wrap_##name parameters { return first_##name arguments; }

extern "C" {

SPGRAD_WRAP(SPGRAD_FIRST, void*, dlopen, (const char* name, int mode), (name, mode))
SPGRAD_WRAP(SPGRAD_FIRST, void*, dlsym, (void* library, const char* name), (library, name))
SPGRAD_WRAP(SPGRAD_FIRST, int, dlclose, (void* library), (library))
SPGRAD_WRAP(SPGRAD_FIRST, char*, dlerror, (), ())
SPGRAD_WRAP(SPGRAD_FIRST_OF_DLINFO, int, dlinfo, (void* library, int request, void* result),
            (library, request, result))
SPGRAD_WRAP(SPGRAD_FIRST, int, dladdr, (const void* address, Dl_info* result), (address, result))
SPGRAD_WRAP(SPGRAD_FIRST, int, pthread_mutex_trylock, (pthread_mutex_t * mutex), (mutex))
SPGRAD_WRAP(SPGRAD_FIRST, double, hypot, (double x, double y), (x, y))

// Read by shared_ptr, which counts without atomic operations where it is not zero; of 2.32.
__attribute__((visibility("hidden"))) extern const char __libc_single_threaded = 0;
}
