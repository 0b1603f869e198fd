#include "cache.h"

#include <c10/util/hash.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <random>
#include <sstream>
#include <string_view>
#include <utility>

namespace spgrad::cuda {
namespace {

namespace fs = std::filesystem;

// A file is this, the digest of the rest, and the rest: the name, a line's end and the code.
std::string header_of(const std::string& key) { return "spgrad CUDA kernel 1\n" + key + "\n"; }

std::string digest(const std::string& text) { return c10::sha1(text).str() + "\n"; }

fs::path file_of(const fs::path& folder, const std::string& key) {
  return folder / (key + ".kernel");
}

const char* environment(const char* name) {
  const char* value = std::getenv(name);
  return value && *value ? value : nullptr;
}

bool write_all(int file, std::string_view text) {
  while (!text.empty()) {
    const ssize_t written = ::write(file, text.data(), text.size());
    if (written <= 0) return false;
    text.remove_prefix(static_cast<size_t>(written));
  }
  return true;
}

}  // namespace

Cache::Cache(fs::path folder, Readers readers) : folder_(std::move(folder)), readers_(readers) {}

Cache Cache::of_user() {
  if (const char* folder = environment("SPGRAD_CACHE")) return Cache(folder);
  // The standard of these folders has relative ones passed by.
  if (const char* folder = environment("XDG_CACHE_HOME"); folder && *folder == '/') {
    return Cache(fs::path(folder) / "spgrad");
  }
  if (const char* home = environment("HOME")) return Cache(fs::path(home) / ".cache" / "spgrad");
  return Cache("");
}

std::optional<Binary> Cache::read(const std::string& key) const {
  const fs::path path = file_of(folder_, key);
  std::error_code error;
  // What is no file, a pipe for example, might never end.
  if (folder_.empty() || !fs::is_regular_file(path, error)) return std::nullopt;
  std::ifstream stream(path, std::ios::binary);
  const std::string text{std::istreambuf_iterator<char>(stream), {}};

  const std::string header = header_of(key);
  const size_t start = header.size() + digest("").size();
  if (!text.starts_with(header) || text.size() < start) return std::nullopt;
  const std::string rest = text.substr(start);
  const size_t end = rest.find('\n');
  if (text.compare(header.size(), start - header.size(), digest(rest)) != 0 ||
      end == std::string::npos) {
    return std::nullopt;
  }
  return Binary{rest.substr(0, end), rest.substr(end + 1)};
}

bool Cache::make_folder() const {
  const mode_t mode = readers_ == Readers::kUser ? 0700 : 0777;
  fs::path folder;
  for (const fs::path& part : folder_) {
    folder /= part;
    ::mkdir(folder.c_str(), mode);  // most are there
  }
  std::error_code error;
  return !folder_.empty() && fs::is_directory(folder_, error);
}

bool Cache::write(const std::string& key, const Binary& binary) const {
  if (!make_folder()) return false;
  std::random_device random;
  std::ostringstream suffix;
  suffix << "." << std::hex << random() << random();
  const fs::path path = file_of(folder_, key), temporary = path.string() + suffix.str();
  const mode_t mode = readers_ == Readers::kUser ? 0600 : 0666;
  const int file = ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
  if (file < 0) return false;

  const std::string rest = binary.name + "\n" + binary.code;
  bool written = write_all(file, header_of(key) + digest(rest) + rest);
  written &= ::close(file) == 0;
  written = written && std::rename(temporary.c_str(), path.c_str()) == 0;
  if (!written) ::unlink(temporary.c_str());
  return written;
}

}  // namespace spgrad::cuda
