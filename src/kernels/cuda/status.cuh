// Bad offsets and indices: how kernels note them, and how the host learns of them.
//
// No kernel touches memory at an index that it has not checked. What is bad is noted in Status, the
// first offset and the first entry of all, so that the text is that of the CPU. Each that is
// earlier than what was noted before is told to the host as well, which takes the earliest.
#pragma once
#include "device.h"

namespace spgrad::cuda {

// Nothing of the result can be trusted.
__device__ __forceinline__ void poison(Status* status) { set_flag(&status->poisoned); }

// A bad offset or entry. Called seldom: what it stores is not to be kept at hand.
__device__ __noinline__ void refuse(const Origin& s, Status* status, bool is_offset, UInt64 place,
                                    Int64 received, Int64 next) {
  const UInt64 noted = ~place;
  if (raise_to(is_offset ? &status->bad_offset : &status->bad_entry, noted) >= noted) return;
  const unsigned number = fetch_add(&status->records, 1);
  if (number >= kRecordsOfProduct) return;
  Record& record = s.records[number];
  record.place = place;
  record.is_offset = is_offset;
  record.received = received;
  record.next = next;
  record.form = s.form;
  record.batched = s.batched;
  record.items = s.items;
  record.rows = s.rows;
  record.columns = s.columns;
  record.entries = s.entries;
  fence_system();
  *static_cast<volatile UInt64*>(&record.serial) = s.serial;
  fence_system();
  *static_cast<volatile UInt64*>(s.pending) = 1;
}

// Tells if offset k of CSR, counted through all items, is bad.
template <class Index>
__device__ __forceinline__ void check_offset(const Origin& s, Status* status, Int64 k) {
  const auto* offsets = static_cast<const Index*>(s.offsets);
  const Int64 local = s.items == 1 ? k : k % (s.rows + 1);
  const Int64 offset = offsets[k];
  const bool bad = local == 0 && offset != 0;
  const bool bad_end = local == s.rows && offset != s.entries;
  const bool decreases = local < s.rows && offset > static_cast<Int64>(offsets[k + 1]);
  if (bad || bad_end || decreases) {
    refuse(s, status, true, static_cast<UInt64>(k), offset, decreases ? offsets[k + 1] : 0);
    poison(status);
  }
}

// Where the entries of a row are. Malformed ones end before they begin.
struct Range {
  Int64 item;
  Int64 begin;
  Int64 end;
};

__device__ __forceinline__ Int64 item_of(const Grouped& a, Int64 row) {
  return a.items == 1 ? 0 : static_cast<unsigned>(row) / static_cast<unsigned>(a.rows);
}

// The offsets of one row, checked. Bad ones are told where `status` is given.
template <class Index>
__device__ __forceinline__ Range read_row(const Grouped& a, Int64 row, const Origin* origin,
                                          Status* status) {
  const Int64 item = item_of(a, row);
  const Int64 local = row - item * a.rows;
  const Int64 place = item * a.offset_stride + local;
  const Index* offsets = static_cast<const Index*>(a.offsets) + place;
  const Int64 begin = offsets[0];
  const Int64 end = offsets[1];
  // Offsets of a batch may count through it, and then only the first and the last are known.
  const Int64 each = a.together ? a.entries : a.entry_stride;
  // An offset that is too large in between is told by the row where they decrease again.
  const bool decreases = begin > end;
  const bool usable = begin >= 0 && !decreases && end <= each;
  if (status != nullptr) {
    const bool first = (a.together ? row : local) == 0;
    const bool last = a.together ? row == a.items * a.rows - 1 : local == a.rows - 1;
    const bool bad_start = first && begin != 0;
    const bool bad_end = last && end != each;
    if (!usable || bad_start || bad_end) poison(status);
    if (a.reports && (bad_start || decreases)) {
      refuse(*origin, status, true, static_cast<UInt64>(place), begin, end);
    } else if (a.reports && bad_end) {
      refuse(*origin, status, true, static_cast<UInt64>(place + 1), end, 0);
    }
  }
  if (!usable) return {item, 0, -1};
  return {item, begin + item * a.entry_stride, end + item * a.entry_stride};
}

}  // namespace spgrad::cuda
