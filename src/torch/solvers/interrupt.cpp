#include "solvers/interrupt.h"

#include <c10/util/Exception.h>
#include <dlfcn.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace spgrad {
namespace {

constexpr std::chrono::milliseconds kPeriod(50);

// The functions of the interpreter that is in the process, if there is one: the library itself has
// no Python in it.
struct Python {
  int (*is_initialized)();
  int (*ensure)();
  void (*release)(int);
  int (*check_signals)();
  void (*clear)();

  static const Python& instance() {
    static const Python python = [] {
      const auto find = [](auto& function, const char* name) {
        function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(
            dlsym(RTLD_DEFAULT, name));
      };
      Python found{};
      find(found.is_initialized, "Py_IsInitialized");
      find(found.ensure, "PyGILState_Ensure");
      find(found.release, "PyGILState_Release");
      find(found.check_signals, "PyErr_CheckSignals");
      find(found.clear, "PyErr_Clear");
      return found;
    }();
    return python;
  }

  bool usable() const {
    return is_initialized && ensure && release && check_signals && clear && is_initialized();
  }
};

}  // namespace

void Interrupt::operator()() {
  const auto now = std::chrono::steady_clock::now();
  if (now - last_ < kPeriod) return;
  last_ = now;
  const Python& python = Python::instance();
  // Python handles signals in its main thread alone. gettid() is missing in GNU libc 2.28.
  if (getpid() != syscall(SYS_gettid) || !python.usable()) return;
  const int state = python.ensure();
  const bool interrupted = python.check_signals() != 0;
  if (interrupted) python.clear();
  python.release(state);
  TORCH_CHECK(!interrupted, "interrupted: a signal ended the iteration");
}

}  // namespace spgrad
