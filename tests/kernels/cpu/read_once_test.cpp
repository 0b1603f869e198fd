// An index is read, checked and used; what was checked is what is used only if the machine code
// does not read it again. Plain loads do not promise that, so the loads are counted: each one
// traps.
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#include <csignal>

#include "products.h"

namespace spgrad::kernels::test {
namespace {

// An array on pages of its own, which can be made to trap.
template <class T>
class CountedArray {
 public:
  explicit CountedArray(const std::vector<T>& array) {
    const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    bytes_ = (array.size() * sizeof(T) + page - 1) / page * page;
    data_ = static_cast<T*>(
        mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    std::copy(array.begin(), array.end(), data_);
  }
  CountedArray(const CountedArray&) = delete;
  CountedArray& operator=(const CountedArray&) = delete;
  ~CountedArray() { munmap(data_, bytes_); }

  const T* data() const { return data_; }

  // The instructions of function() that access the array.
  template <class Function>
  int64_t accesses(const Function& function) {
    memory = data_;
    bytes = bytes_;
    count = 0;
    struct sigaction fault{};
    struct sigaction step{};
    fault.sa_flags = step.sa_flags = SA_SIGINFO;
    fault.sa_sigaction = let_through;
    step.sa_sigaction = close_again;
    struct sigaction fault_before, step_before;
    sigaction(SIGSEGV, &fault, &fault_before);
    sigaction(SIGTRAP, &step, &step_before);
    mprotect(data_, bytes_, PROT_NONE);
    function();
    mprotect(data_, bytes_, PROT_READ | PROT_WRITE);
    sigaction(SIGSEGV, &fault_before, nullptr);
    sigaction(SIGTRAP, &step_before, nullptr);
    return count;
  }

 private:
  static constexpr int64_t kTrap = 0x100;  // the flag of the CPU: a trap after one instruction

  static void let_through(int, siginfo_t* info, void* context) {
    const auto offset = static_cast<char*>(info->si_addr) - static_cast<char*>(memory);
    if (offset < 0 || static_cast<size_t>(offset) >= bytes) {
      signal(SIGSEGV, SIG_DFL);  // an access that is none of these
      return;
    }
    count = count + 1;
    mprotect(memory, bytes, PROT_READ | PROT_WRITE);
    static_cast<ucontext_t*>(context)->uc_mcontext.gregs[REG_EFL] |= kTrap;
  }
  static void close_again(int, siginfo_t*, void* context) {
    mprotect(memory, bytes, PROT_NONE);
    static_cast<ucontext_t*>(context)->uc_mcontext.gregs[REG_EFL] &= ~kTrap;
  }

  static inline void* memory;
  static inline size_t bytes;
  static inline volatile sig_atomic_t count;

  T* data_;
  size_t bytes_;
};

template <class Product>
class ReadOnceTest : public testing::Test {};
using Cases = testing::Types<
    Spmm<Types<float, int32_t, int32_t>>, Spmm<Types<double, int64_t, MovedEntry<int64_t>>>,
    Spmm<Types<Float16, int32_t, MovedEntry<int32_t>>>,
    Spmm<Types<std::complex<float>, int64_t, int64_t>>, Sddmm<Types<float, int64_t, int64_t>>,
    Sddmm<Types<double, int32_t, MovedEntry<int32_t>>>, Sddmm<Types<BFloat16, int32_t, int32_t>>,
    Sddmm<Types<std::complex<double>, int64_t, MovedEntry<int64_t>>>,
    Backward<Types<float, int32_t, MovedEntry<int32_t>>>,
    Backward<Types<double, int64_t, MovedEntry<int64_t>>>,
    Backward<Types<Float16, int64_t, MovedEntry<int64_t>>>,
    Backward<Types<std::complex<double>, int32_t, MovedEntry<int32_t>>>>;
TYPED_TEST_SUITE(ReadOnceTest, Cases);

TYPED_TEST(ReadOnceTest, LoadsEachEntryOnceAndOnceMoreToPrefetch) {
  using Index = typename TypeParam::Index;
  using Entry = typename TypeParam::Entry;
  std::mt19937_64 random(5);
  // Rows of each length up to that of the groups in which entries are read.
  const RowLengths lengths = {1, 2, 3, 4, 5, 6, 7, 8, 9, 30, 0, 45};
  const auto a = make_sparse<Index, Entry>(1, std::ssize(lengths), 9, lengths, random);
  // A moved entry is an index and a position, which compilers may load one by one. The position is
  // read ahead too, for any number of columns.
  const int64_t of_position = std::is_same_v<Index, Entry> ? 0 : 2;
  CountedArray<Entry> entry(a.entry);
  // A row of one tile. One of 64 bytes is prefetched some entries ahead, by an index that is not
  // used for anything else.
  constexpr int64_t wide = 64 / static_cast<int64_t>(sizeof(typename TypeParam::Scalar));
  for (const auto& [p, loads] : {std::pair<int64_t, int64_t>{1, 1}, {wide, 2}}) {
    Problem<TypeParam> problem(a, p, random);
    auto arguments = problem.arguments();
    arguments.a.entry = entry.data();
    for_each_instruction_set([&, p = p, loads = loads] {
      Status status = Status::bad_index;
      const int64_t accesses =
          entry.accesses([&] { status = TypeParam::rows(arguments, 0, a.all_rows()); });
      ASSERT_EQ(status, Status::done);
      EXPECT_GT(accesses, 0);
      EXPECT_LE(accesses, (loads + of_position) * a.view.entries) << "p = " << p;
    });
  }
}

template <class T>
class ReadOnceByRowsTest : public testing::Test {};
using ByRowsCases = testing::Types<Types<float, int32_t, int32_t>, Types<double, int64_t, int64_t>,
                                   Types<std::complex<float>, int32_t, int32_t>>;
TYPED_TEST_SUITE(ReadOnceByRowsTest, ByRowsCases);

TYPED_TEST(ReadOnceByRowsTest, LoadsEachEntryOnceForItsColumnsAndOnceForItsProducts) {
  using Scalar = typename TypeParam::Scalar;
  using Index = typename TypeParam::Index;
  std::mt19937_64 random(5);
  const RowLengths lengths = {1, 2, 3, 4, 5, 6, 7, 8, 9, 30, 0, 45};
  const auto a = make_sparse<Index, Index>(1, std::ssize(lengths), 9, lengths, random);
  CountedArray<Index> entry(a.entry);
  auto view = a.view;
  view.entry = entry.data();
  for (const int64_t p : {1, 3, 4}) {
    const std::vector<Scalar> dense(static_cast<size_t>(12 * p));
    const std::vector<Scalar> values(a.entry.size());
    std::vector<Scalar> out(static_cast<size_t>(9 * p));
    std::vector<Scalar> out_values(values.size());
    std::vector<Scalar> workspace(9 * 4);
    for_each_instruction_set([&] {
      bool done = false;
      const int64_t accesses = entry.accesses([&] {
        done = backward_by_rows<Scalar>(view, 1, values.data(), {dense.data(), 0, p},
                                        {dense.data(), 0, p}, {out.data(), 0, p}, out_values.data(),
                                        p, workspace);
      });
      ASSERT_TRUE(done);
      EXPECT_GT(accesses, a.view.entries);
      EXPECT_LE(accesses, 2 * a.view.entries) << "p = " << p;
    });
  }
}

// The row that is used is loaded once; ends of rows are found by two loads more for each vector of
// rows, and are right whatever these give.
TYPED_TEST(ReadOnceByRowsTest, LoadsTheRowOfCoordinatesOnceForItsAddress) {
  using Scalar = typename TypeParam::Scalar;
  using Index = typename TypeParam::Index;
  std::mt19937_64 random(5);
  constexpr int64_t rows = 129;  // and twice 64 ends
  const auto a = make_sparse<Index, Index>(1, rows, 9, RowLengths(rows, 1), random);
  std::vector<Index> rows_of_entries(rows);
  std::iota(rows_of_entries.begin(), rows_of_entries.end(), Index{0});
  CountedArray<Index> row(rows_of_entries);
  const CoordinateView<Index> view{
      .rows = rows, .columns = 9, .entries = rows, .row = row.data(), .column = a.entry.data()};
  const std::vector<Scalar> dense(rows);
  std::vector<Scalar> out(9);
  std::vector<Scalar> out_values(rows);
  std::vector<Scalar> workspace(9 * 4);
  for_each_instruction_set([&] {
    bool done = false;
    const int64_t accesses = row.accesses([&] {
      done = backward_by_rows<Scalar>(view, 1, dense.data(), {dense.data(), 0, 1},
                                      {dense.data(), 0, 1}, {out.data(), 0, 1}, out_values.data(),
                                      1, workspace);
    });
    ASSERT_TRUE(done);
    EXPECT_GT(accesses, rows);
    EXPECT_LT(accesses, 2 * rows);
  });
}

// Entries that sddmm collects from several rows: each is checked in the load that is used.
TYPED_TEST(ReadOnceTest, LoadsEachEntryOfFewOnceAndOnceMoreToPrefetch) {
  using Index = typename TypeParam::Index;
  using Entry = typename TypeParam::Entry;
  std::mt19937_64 random(6);
  RowLengths lengths(400, 0);
  for (size_t row = 0; row < lengths.size(); row += 4) lengths[row] = 1;
  const auto a = make_sparse<Index, Entry>(1, std::ssize(lengths), 9, lengths, random);
  const int64_t loads = std::is_same_v<Index, Entry> ? 2 : 4;  // of an index, and of a position
  CountedArray<Entry> entry(a.entry);
  constexpr int64_t wide = 64 / static_cast<int64_t>(sizeof(typename TypeParam::Scalar));
  for (const int64_t p : {int64_t{1}, wide}) {
    Problem<TypeParam> problem(a, p, random);
    auto arguments = problem.arguments();
    arguments.a.entry = entry.data();
    for_each_instruction_set([&] {
      Status status = Status::bad_index;
      const int64_t accesses =
          entry.accesses([&] { status = TypeParam::rows(arguments, 0, a.all_rows()); });
      ASSERT_EQ(status, Status::done);
      EXPECT_GT(accesses, 0);
      EXPECT_LE(accesses, loads * a.view.entries) << "p = " << p;
    });
  }
}

}  // namespace
}  // namespace spgrad::kernels::test
