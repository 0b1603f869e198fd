// Mutual exclusion for a few instructions.
#pragma once

#include <pthread.h>

#include <mutex>

namespace spgrad {

// Guards what forward and backward passes in several threads share: which node serves which tensor,
// the hooks that are put on other people's nodes, and who adds to .grad. One mutex for all of it
// suffices.
//
// While it is held, no tensor is computed, allocated or released, and nothing is called that may
// enter Python: another thread may wait for it with the interpreter's lock in its hands. A fork
// waits until it is free, so that the child finds it free, too.
class BriefLock {
 public:
  BriefLock() : lock_(mutex()) {}

 private:
  static std::mutex& mutex() {
    static std::mutex& mutex = *[] {
      static std::mutex made;
      pthread_atfork([] { made.lock(); }, [] { made.unlock(); }, [] { made.unlock(); });
      return &made;
    }();
    return mutex;
  }

  std::lock_guard<std::mutex> lock_;
};

}  // namespace spgrad
