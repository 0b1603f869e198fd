// What host code hands to the kernels: plain structs, the same for both compilers.
//
// A kernel takes one of them by value. Pointers are to device memory, unless it says otherwise;
// strides count elements. The types behind `void` are arguments of the kernel's template.
#pragma once

namespace spgrad::cuda {

using Int64 = long long;
using UInt64 = unsigned long long;

inline constexpr int kWarp = 32;

// Of the products: warps of a thread block, and its threads.
inline constexpr int kWarps = 8;
inline constexpr int kBlock = kWarps * kWarp;

// Of products of few columns: the most of them, and lanes that share the entries of a row of up to
// kWarp.
inline constexpr int kNarrowColumns = 8;
inline constexpr int kNarrowLanes = 8;

// Of the sort: threads of a thread block, entries that it does, greatest number of bits of a digit.
inline constexpr int kSortThreads = 256;
inline constexpr int kSortRounds = 8;
inline constexpr int kTileEntries = kSortThreads * kSortRounds;
inline constexpr int kDigitBits = 9;
// Keys in a row that may have no entry, and are looked at together.
inline constexpr int kKeysOfGap = 128;
// Of the sum over its tiles: threads of a thread block, and digits, whose counts are one sector.
inline constexpr int kScanThreads = 1024;
inline constexpr int kScanDigits = 8;

// Entries of a row (or, of a transposed structure, of a column) from which on it is cut into pieces
// of as many.
inline constexpr int kLongRow = 256;

// What the kernels of one product tell each other. Zero at first.
struct Status {
  // The complements of the first bad offset and the first bad entry; 0 where there is none. Offsets
  // of all items are counted through, and so are entries, of COO once for each dimension.
  UInt64 bad_offset;
  UInt64 bad_entry;
  unsigned poisoned;   // whether no element of the result can be trusted
  unsigned must_sort;  // whether entries are neither in order nor those of a symmetric structure
  unsigned pieces;     // of long rows
  unsigned records;    // of bad offsets and entries
};

// A piece of a long row.
struct Piece {
  Int64 row;
  unsigned number;  // in its row
  unsigned first;   // which piece is the first one of this row
  unsigned done;    // of the first piece: how many are summed up
  unsigned unused;
};

enum Form : int { kCsr, kCoo, kPattern };

// Records that one product can leave: each is of an earlier place than the one before.
inline constexpr int kRecordsOfProduct = 64;

// A bad offset or entry, in memory of the host: what the text of the error says.
struct Record {
  UInt64 serial;  // of the product; written last, 0 where there is no error
  UInt64 place;
  Int64 is_offset;
  Int64 received;
  Int64 next;  // where offsets decrease, the offset behind
  // Of the structure.
  Int64 form;
  Int64 batched;
  Int64 items;
  Int64 rows;
  Int64 columns;
  Int64 entries;
};

// The structure as it was given, and where the host looks for errors.
struct Origin {
  int form;
  int wide;  // whether indices are int64, not int32
  int batched;
  Int64 items;
  Int64 rows;     // of each item
  Int64 columns;  // of each item
  Int64 entries;  // CSR: of each item; else of all
  const void* offsets;
  const void* indices;  // COO: (dimensions, entries)
  Record* records;      // kRecordsOfProduct of them
  UInt64* pending;      // whether the host has to look
  UInt64 serial;
};

// Entries grouped by row. The rows of a batch together are less than 2^32.
struct Grouped {
  int reports;  // whether bad entries are to be told, not only left out; else another kernel has
                // told them
  Int64 items;
  Int64 rows;     // of each item
  Int64 columns;  // of each item: what an index must be below
  Int64 entries;  // of all items
  // The offsets of item i begin at i · offset_stride, and count from i · entry_stride, or together
  // through all items.
  int together;
  Int64 offset_stride;
  Int64 entry_stride;
  const void* offsets;
  const void* indices;  // or pairs of index and position of the value
};

struct Operand {
  const void* data;
  Int64 item_stride;
  Int64 row_stride;
};

// The search for long rows, and for bad offsets.
struct Find {
  Grouped a;
  Origin origin;
  Status* status;
  Piece* pieces;
  unsigned most_pieces;  // that there is room for
};

// C_r = Σ a_k X_{index k}, and Y_r · X_{index k} at each entry k of row r; one of them or both.
struct Product {
  Grouped a;
  Origin origin;
  const void* values;
  Operand gathered;  // X
  Operand own;       // Y
  void* sums;        // C, contiguous
  void* products;    // one number for each value
  int p;
  int conjugated;  // whether a and Y are to be conjugated
  Status* status;
  Piece* pieces;
  unsigned most_pieces;
  unsigned piece_blocks;   // thread blocks that do pieces; the others do rows
  unsigned rows_of_block;  // at most kBlock
  void* partial_sums;      // p numbers for each piece
};

// The greatest or least a_k X_{index k} of each row and column; the product's sums are these.
struct Extremum {
  Product product;
  int greatest;          // or least
  int* winners;          // numbers in their rows, -1 where a row has no entries
  int* partial_winners;  // p for each piece
};

// Stable radix sort of entries by row or by column, in passes over digits of the key.
struct Sort {
  Origin origin;
  Int64 entries;    // of all items
  int may_be_idle;  // whether `must_sort` of the status tells if there is anything to do
  int shift;        // of the digit
  int digit_bits;
  unsigned tiles;
  // Of all passes but the first one.
  const unsigned* keys;
  const void* pairs;
  unsigned* sorted_keys;
  void* sorted_pairs;
  // Of the last pass: entries that are found in order are put there.
  unsigned* last_keys;
  void* last_pairs;
  unsigned* counts;   // (tiles, digits)
  unsigned* totals;   // (digits)
  Int64* first_rows;  // of CSR, (tiles + 1): the row of the first entry of each tile, counted
                      // through all items, and that of the last entry
  Status* status;
};

// Where each key begins among sorted ones.
struct Offsets {
  Int64 entries;
  Int64 keys_in_all;
  const unsigned* keys;
  void* offsets;            // (keys_in_all + 1)
  const Status* of_mirror;  // where given: nothing is to do unless it says that entries were sorted
};

// The entries by column of a CSR structure, where it is symmetric, of fewer than 2^31 rows and
// entries.
struct Mirror {
  Origin origin;
  unsigned tiles;
  int* offsets;  // (rows + 1)
  void* pairs;   // of int
  Status* status;
};

// A look through all offsets and indices, for what no product looks at.
struct Check {
  Origin origin;
  Status* status;
};

}  // namespace spgrad::cuda
