// Compiled kernels on the disk, one file for each.
//
// A cache is never needed: what cannot be read (absent, truncated, changed, of another kernel) is
// not there, and what cannot be written is not kept.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

namespace spgrad::cuda {

// Code for a device, and the name of the kernel in it.
struct Binary {
  std::string name;
  std::string code;
};

class Cache {
 public:
  // What a user's programs write is theirs alone; others may read what is made for them.
  enum class Readers { kUser, kEveryone };

  // An empty folder: nothing is kept.
  explicit Cache(std::filesystem::path folder, Readers readers = Readers::kUser);

  // $SPGRAD_CACHE, else spgrad in $XDG_CACHE_HOME, else in ~/.cache.
  static Cache of_user();

  const std::filesystem::path& folder() const { return folder_; }

  // The key stands for all that the code depends on, and makes the file's name.
  std::optional<Binary> read(const std::string& key) const;

  // Other processes may write the same file at the same time; readers see all of one or nothing.
  // Returns whether it was written.
  bool write(const std::string& key, const Binary& binary) const;

 private:
  bool make_folder() const;

  std::filesystem::path folder_;
  Readers readers_;
};

}  // namespace spgrad::cuda
