#include "cuda/report.h"

#include <array>
#include <atomic>
#include <cstdlib>
#include <mutex>
#include <string>
#include <vector>

#include "cuda/kernels.h"
#include "malformed.h"

namespace spgrad::cuda {
namespace {

// Products whose errors have a place of their own until the host looks.
constexpr size_t kProducts = 64;

struct Mailbox {
  UInt64 pending;
  std::array<Record, kProducts * kRecordsOfProduct> records;
};

// Of one device: the same memory as the host and as the device names it.
struct Addresses {
  Mailbox* host = nullptr;
  Mailbox* device = nullptr;
};

// Kept for the process, since kernels may still write when it ends.
Addresses mailbox_of(c10::Device device) {
  static std::mutex mutex;
  static auto& mailboxes = *new std::vector<Addresses>;
  const auto index = static_cast<size_t>(device.has_index() ? device.index() : 0);
  const std::lock_guard lock(mutex);
  if (mailboxes.size() <= index) mailboxes.resize(index + 1);
  Addresses& found = mailboxes[index];
  if (found.host == nullptr) {
    void* on_device = nullptr;
    found.host = static_cast<Mailbox*>(allocate_mapped(sizeof(Mailbox), device, &on_device));
    found.device = static_cast<Mailbox*>(on_device);
  }
  return found;
}

std::atomic<bool>& at_once() {
  static std::atomic<bool> wanted = [] {
    const char* blocking = std::getenv("CUDA_LAUNCH_BLOCKING");
    return blocking != nullptr && std::string(blocking) == "1";
  }();
  return wanted;
}

UInt64 read(const UInt64& number) { return __atomic_load_n(&number, __ATOMIC_ACQUIRE); }
UInt64 take(UInt64& number) { return __atomic_exchange_n(&number, UInt64{0}, __ATOMIC_ACQ_REL); }

// The place of an entry among all that the CPU looks at, in its order: offsets of an item, then its
// indices.
UInt64 rank(const Record& record) {
  if (record.form != kCsr) return record.place;
  const auto each = static_cast<UInt64>(record.is_offset != 0 ? record.rows + 1 : record.entries);
  const UInt64 item = record.place / each;
  const UInt64 before = record.is_offset != 0 ? 0 : static_cast<UInt64>(record.rows + 1);
  return item * static_cast<UInt64>(record.rows + 1 + record.entries) + before +
         record.place % each;
}

[[noreturn]] void raise(const Record& record) {
  using Rule = Malformed::Rule;
  Malformed found = {Rule::pattern, -1, 0, record.received, record.next, 0};
  const auto place = static_cast<int64_t>(record.place);
  if (record.form == kCsr) {
    const int64_t each = record.is_offset != 0 ? record.rows + 1 : record.entries;
    if (record.batched != 0) found.item = place / each;
    found.position = place % each;
    if (record.is_offset == 0) {
      found.rule = Rule::column_of_csr;
      found.bound = record.columns;
    } else if (found.position == 0 && record.received != 0) {
      found.rule = Rule::start;
    } else if (found.position == record.rows) {
      found.rule = Rule::end;
      found.bound = record.entries;
    } else {
      found.rule = Rule::decrease;
    }
  } else if (record.form == kCoo) {
    constexpr Rule rules[] = {Rule::item_of_coo, Rule::row_of_coo, Rule::column_of_coo};
    const int64_t bounds[] = {record.items, record.rows, record.columns};
    const int64_t dimensions = record.batched != 0 ? 3 : 2;
    const int64_t dimension = place % dimensions + 3 - dimensions;
    found.rule = rules[dimension];
    found.bound = bounds[dimension];
    found.position = place / dimensions;
  }
  report_malformed(found);
}

}  // namespace

void prepare_records(c10::Device device, Origin& origin) {
  static std::atomic<UInt64> last_serial = 0;
  const Addresses addresses = mailbox_of(device);
  origin.serial = ++last_serial;
  origin.records =
      &addresses.device->records[origin.serial % kProducts * size_t{kRecordsOfProduct}];
  origin.pending = &addresses.device->pending;
}

void raise_reported(c10::Device device) {
  Mailbox& mailbox = *mailbox_of(device).host;
  if (read(mailbox.pending) == 0) return;
  // The kernel that has found one may be about to find an earlier one, or to write it.
  if (!is_capturing(device)) synchronize(device);
  if (take(mailbox.pending) == 0) return;
  // The first place of the first product that has reported any.
  Record first = {};
  for (Record& record : mailbox.records) {
    if (read(record.serial) == 0) continue;
    const Record copy = record;  // not before its serial, which is written last
    const UInt64 serial = take(record.serial);
    if (first.serial == 0 || serial < first.serial ||
        (serial == first.serial && rank(copy) < rank(first))) {
      first = copy;
      first.serial = serial;
    }
  }
  if (first.serial != 0) raise(first);
}

void finish_product(c10::Device device) {
  if (at_once() && !is_capturing(device)) check(device);
}

void check(c10::Device device) {
  synchronize(device);
  raise_reported(device);
}

bool set_check_at_once(bool wanted) { return at_once().exchange(wanted); }

}  // namespace spgrad::cuda
