// Arrays at the edge of memory that must not be touched: any access past their end, or before their
// start, ends the process.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <stdexcept>
#include <type_traits>
#include <vector>

namespace spgrad::kernels::test {

// The side of an array on which the forbidden memory lies directly.
enum class Side { front, back };

template <class T>
class Guarded {
  static_assert(std::is_trivially_copyable_v<T>);

 public:
  Guarded(const std::vector<T>& elements, Side side) : Guarded(elements, elements.size(), side) {}

  // The first `count` of the elements.
  Guarded(const std::vector<T>& elements, size_t count, Side side) : count_(count) {
    const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    const size_t bytes = count * sizeof(T);
    const size_t inner = (bytes + page - 1) / page * page;
    mapped_ = inner + 2 * page;
    memory_ =
        static_cast<char*>(mmap(nullptr, mapped_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    if (memory_ == MAP_FAILED) throw std::runtime_error("mmap failed");
    char* const first = memory_ + page;
    if (inner > 0 && mprotect(first, inner, PROT_READ | PROT_WRITE) != 0) {
      throw std::runtime_error("mprotect failed");
    }
    data_ = reinterpret_cast<T*>(side == Side::front ? first : first + inner - bytes);
    if (bytes > 0) std::memcpy(data_, elements.data(), bytes);
  }
  ~Guarded() { munmap(memory_, mapped_); }
  Guarded(const Guarded&) = delete;
  Guarded& operator=(const Guarded&) = delete;

  T* data() { return data_; }
  T& operator[](size_t i) { return data_[i]; }
  size_t size() const { return count_; }
  std::vector<T> copy() const { return {data_, data_ + count_}; }

 private:
  size_t count_;
  size_t mapped_;
  char* memory_;
  T* data_;
};

}  // namespace spgrad::kernels::test
