// What lies between the name of a kernel and its launch, as far as it goes without a device: the
// cache on the disk, and NVRTC, where PyTorch brings it.
#include <gmock/gmock.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <thread>
#include <vector>

#include "cuda/binaries.h"
#include "cuda/cache.h"
#include "cuda/compile.h"
#include "cuda/kernels.h"
#include "cuda/library.h"

namespace spgrad::cuda {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::AnyOf;
using testing::Contains;
using testing::HasSubstr;
using testing::StartsWith;
using testing::ThrowsMessage;

const std::string kKey(40, 'a');
const std::string kOtherKey(40, 'b');
// With what could be taken for the end of something.
const Binary kBinary{"_Z3toy", std::string("code\n\0\n\xff", 8)};

std::string read_file(const fs::path& path) {
  std::ifstream stream(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(stream), {}};
}

void write_file(const fs::path& path, const std::string& text) {
  std::ofstream(path, std::ios::binary) << text;
}

std::vector<fs::path> files_of(const fs::path& folder) {
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(folder)) files.push_back(entry.path());
  return files;
}

unsigned mode_of(const fs::path& path) {
  struct stat status{};
  ::stat(path.c_str(), &status);
  return status.st_mode & 0777u;
}

class Folder : public testing::Test {
 protected:
  Folder() {
    std::string name = (fs::temp_directory_path() / "spgrad-XXXXXX").string();
    root_ = ::mkdtemp(name.data());
  }
  ~Folder() override {
    fs::permissions(root_, fs::perms::owner_all);
    fs::remove_all(root_);
  }

  // The only file of a cache that has one kernel.
  fs::path file() const { return files_of(root_).at(0); }

  fs::path root_;
};

class CudaCache : public Folder {
 protected:
  CudaCache() : cache_(root_) {}

  void expect_kept() const {
    const std::optional<Binary> found = cache_.read(kKey);
    ASSERT_TRUE(found);
    EXPECT_EQ(found->name, kBinary.name);
    EXPECT_EQ(found->code, kBinary.code);
  }

  Cache cache_;
};

TEST_F(CudaCache, KeepsWhatIsWritten) {
  EXPECT_FALSE(cache_.read(kKey));
  EXPECT_TRUE(cache_.write(kKey, kBinary));
  expect_kept();
  EXPECT_FALSE(cache_.read(kOtherKey));
  EXPECT_EQ(files_of(root_).size(), 1);  // no temporary file is left
}

TEST_F(CudaCache, PassesByWhatIsTruncated) {
  cache_.write(kKey, kBinary);
  const std::string whole = read_file(file());
  for (size_t size = 0; size < whole.size(); ++size) {
    write_file(file(), whole.substr(0, size));
    EXPECT_FALSE(cache_.read(kKey)) << size;
  }
  cache_.write(kKey, kBinary);
  expect_kept();
}

TEST_F(CudaCache, PassesByWhatIsChanged) {
  cache_.write(kKey, kBinary);
  const std::string whole = read_file(file());
  for (size_t place = 0; place < whole.size(); ++place) {
    std::string changed = whole;
    changed[place] = static_cast<char>(changed[place] ^ 1);
    write_file(file(), changed);
    EXPECT_FALSE(cache_.read(kKey)) << place;
  }
  write_file(file(), whole + "more");
  EXPECT_FALSE(cache_.read(kKey));
}

TEST_F(CudaCache, PassesByTheFileOfAnotherKernel) {
  cache_.write(kKey, kBinary);
  const fs::path mine = file();
  cache_.write(kOtherKey, {"other", "other"});
  for (const fs::path& path : files_of(root_)) {
    if (path != mine) fs::rename(path, mine);
  }
  EXPECT_FALSE(cache_.read(kKey));
}

TEST_F(CudaCache, PassesByWhatIsNoFile) {
  cache_.write(kKey, kBinary);
  const fs::path path = file();
  fs::remove(path);
  ASSERT_EQ(::mkfifo(path.c_str(), 0600), 0);
  EXPECT_FALSE(cache_.read(kKey));
  fs::remove(path);
  fs::create_directory(path);
  EXPECT_FALSE(cache_.read(kKey));
  EXPECT_FALSE(cache_.write(kKey, kBinary));
  EXPECT_EQ(files_of(root_).size(), 1);
}

TEST_F(CudaCache, CannotBeWherePartOfThePathIsAFile) {
  write_file(root_ / "file", "text");
  const Cache cache(root_ / "file" / "spgrad");
  EXPECT_FALSE(cache.write(kKey, kBinary));
  EXPECT_FALSE(cache.read(kKey));
}

TEST_F(CudaCache, CannotBeWhereNothingCanBeMade) {
  const Cache cache("/proc/spgrad");  // for the superuser, too
  EXPECT_FALSE(cache.write(kKey, kBinary));
  EXPECT_FALSE(cache.read(kKey));
}

TEST_F(CudaCache, IsReadWhereItCannotBeWritten) {
  cache_.write(kKey, kBinary);
  fs::permissions(root_, fs::perms::owner_read | fs::perms::owner_exec);
  expect_kept();
  if (::geteuid() != 0) {  // whom nothing is forbidden
    EXPECT_FALSE(cache_.write(kOtherKey, kBinary));
  }
}

TEST_F(CudaCache, IsNowhereWithoutAFolder) {
  EXPECT_FALSE(Cache("").write(kKey, kBinary));
  EXPECT_FALSE(Cache("").read(kKey));
}

TEST_F(CudaCache, MakesFoldersThatAreTheUsersAlone) {
  const mode_t before = ::umask(022);
  Cache(root_ / "a" / "b").write(kKey, kBinary);
  Cache(root_ / "c" / "d", Cache::Readers::kEveryone).write(kKey, kBinary);
  ::umask(before);
  EXPECT_EQ(mode_of(root_ / "a"), 0700);
  EXPECT_EQ(mode_of(root_ / "a" / "b"), 0700);
  EXPECT_EQ(mode_of(files_of(root_ / "a" / "b").at(0)), 0600);
  EXPECT_EQ(mode_of(root_ / "c" / "d"), 0755);
  EXPECT_EQ(mode_of(files_of(root_ / "c" / "d").at(0)), 0644);
}

TEST_F(CudaCache, ManyThreadsWriteAndReadTheSameKernel) {
  const Binary large{"name", std::string(50'000, 'x')};
  std::atomic<int> wrong = 0;
  std::vector<std::thread> threads;
  for (int thread = 0; thread < 4; ++thread) {
    threads.emplace_back([&] {
      for (int round = 0; round < 20; ++round) {
        if (!cache_.write(kKey, large)) ++wrong;
        const std::optional<Binary> found = cache_.read(kKey);
        if (!found || found->code != large.code) ++wrong;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
  EXPECT_EQ(files_of(root_).size(), 1);
}

// Sets a variable of the environment, or removes it, and puts back what it was.
class Variable {
 public:
  Variable(const char* name, const char* value) : name_(name) {
    if (const char* before = std::getenv(name)) before_ = before;
    set(value);
  }
  Variable(const Variable&) = delete;
  Variable& operator=(const Variable&) = delete;
  ~Variable() { set(before_ ? before_->c_str() : nullptr); }

 private:
  void set(const char* value) const {
    if (value) {
      ::setenv(name_, value, 1);
    } else {
      ::unsetenv(name_);
    }
  }
  const char* name_;
  std::optional<std::string> before_;
};

TEST(CudaUserCache, IsWhereTheEnvironmentSays) {
  const Variable own("SPGRAD_CACHE", "/own"), standard("XDG_CACHE_HOME", "/standard");
  const Variable home("HOME", "/home/user");
  EXPECT_EQ(Cache::of_user().folder(), "/own");
  {
    const Variable none("SPGRAD_CACHE", nullptr);
    EXPECT_EQ(Cache::of_user().folder(), "/standard/spgrad");
    const Variable relative("XDG_CACHE_HOME", "relative");
    EXPECT_EQ(Cache::of_user().folder(), "/home/user/.cache/spgrad");
    const Variable empty("XDG_CACHE_HOME", "");
    EXPECT_EQ(Cache::of_user().folder(), "/home/user/.cache/spgrad");
    const Variable homeless("HOME", nullptr);
    EXPECT_EQ(Cache::of_user().folder(), "");
  }
  EXPECT_EQ(Cache::of_user().folder(), "/own");
}

class CudaCompile : public testing::Test {
 protected:
  void SetUp() override {
    if (!nvrtc().missing.empty()) GTEST_SKIP() << nvrtc().missing;
  }
};

Source toy(const std::string& body) {
  Source source{{"toy.cuh",
                 "#pragma once\n#include \"device.h\"\n"
                 "namespace spgrad::cuda {\n"
                 "template <class T> struct Fill { T* p; T value; Int64 size; };\n"
                 "template <class T, int kStride>\n"
                 "__global__ void fill(Fill<T> arguments) {\n" +
                     body + "\n}\n}\n"}};
  for (const auto& file : embedded_source()) {
    if (file.first == "device.h" || file.first == "arguments.h") source.push_back(file);
  }
  return source;
}

const std::string kBody =
    "const Int64 i = (blockIdx.x * Int64(blockDim.x) + threadIdx.x) * kStride;"
    "if (i < arguments.size) arguments.p[i] = arguments.value;";
const std::string kExpression = "spgrad::cuda::fill<float, 2>";

TEST_F(CudaCompile, GivesCodeForEachArchitecture) {
  std::vector<std::string> codes;
  for (const std::string architecture : {"sm_90", "sm_75"}) {
    const Binary binary = compile(toy(kBody), kExpression, architecture);
    EXPECT_THAT(binary.name, AllOf(StartsWith("_Z"), HasSubstr("fill")));
    EXPECT_THAT(binary.code, StartsWith("\x7f"
                                        "ELF"));
    EXPECT_THAT(binary.code, HasSubstr(binary.name));
    codes.push_back(binary.code);
  }
  EXPECT_NE(codes[0], codes[1]);
}

TEST_F(CudaCompile, TakesItsFilesFromMemory) {
  // A file of the same name where the program runs is not the one that is included.
  const fs::path name = "device.h";
  ASSERT_FALSE(fs::exists(name));
  write_file(name, "#error the wrong file\n");
  EXPECT_NO_THROW(compile(toy(kBody), kExpression, "sm_90"));
  fs::remove(name);
}

TEST_F(CudaCompile, SaysWhatDidNotCompile) {
  const auto broken = [] { compile(toy("undeclared = 1;"), kExpression, "sm_90"); };
  EXPECT_THAT(broken, ThrowsMessage<c10::Error>(
                          AllOf(HasSubstr(kExpression), HasSubstr("sm_90"), HasSubstr("report"),
                                HasSubstr(cache_key(toy("undeclared = 1;"), kExpression, "sm_90")),
                                HasSubstr("NVRTC " + nvrtc_version()),
                                HasSubstr("identifier \"undeclared\" is undefined"))));
}

TEST_F(CudaCompile, SaysThatAKernelIsNotThere) {
  EXPECT_THAT([] { compile(toy(kBody), "spgrad::cuda::absent<float>", "sm_90"); },
              ThrowsMessage<c10::Error>(AllOf(HasSubstr("absent"), HasSubstr("report"))));
}

TEST_F(CudaCompile, HasAKeyForAllThatMatters) {
  const Source source = toy(kBody);
  const std::string key = cache_key(source, kExpression, "sm_90");
  EXPECT_EQ(key.size(), 40);
  EXPECT_EQ(key, cache_key(toy(kBody), kExpression, "sm_90"));
  EXPECT_NE(key, cache_key(toy(kBody + " "), kExpression, "sm_90"));
  EXPECT_NE(key, cache_key(source, "spgrad::cuda::fill<float, 1>", "sm_90"));
  EXPECT_NE(key, cache_key(source, kExpression, "sm_75"));
  Source renamed = source;
  renamed[0].first += "h";
  EXPECT_NE(key, cache_key(renamed, kExpression, "sm_90"));
}

TEST_F(CudaCompile, ListsArchitectures) {
  EXPECT_THAT(supported_architectures(), Contains("sm_90"));
  EXPECT_THAT(supported_architectures(), Contains("sm_75"));
}

TEST_F(CudaCompile, CompilesSeveralAtATime) {
  std::vector<std::thread> threads;
  std::vector<std::string> names(4);
  for (size_t i = 0; i < names.size(); ++i) {
    threads.emplace_back([&names, i] {
      const std::string expression = "spgrad::cuda::fill<int, " + std::to_string(i + 1) + ">";
      names[i] = compile(toy(kBody), expression, "sm_90").name;
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (size_t i = 0; i < names.size(); ++i) {
    EXPECT_THAT(names[i], HasSubstr("fillIiLi" + std::to_string(i + 1) + "E"));
  }
}

TEST_F(CudaCompile, RefusesToPrecompileForUnknownArchitectures) {
  EXPECT_THAT([] { precompile("sm_1", {}, "/nowhere"); },
              ThrowsMessage<c10::ValueError>(AllOf(HasSubstr("sm_90"), HasSubstr("'sm_1'"))));
}

TEST(CudaDevice, SaysWhyItCannotBeUsed) {
  if (driver().missing.empty()) GTEST_SKIP() << "there is a driver";
  const c10::Device device(kDeviceType, 0);
  EXPECT_THAT(why_unavailable(device).value_or(""), StartsWith("no CUDA driver: "));
  EXPECT_THAT([&] { launch(kExpression, device, {1, 1, 32}, nullptr, false); },
              ThrowsMessage<c10::Error>(HasSubstr("no CUDA driver: ")));
  EXPECT_NO_THROW(launch(kExpression, device, {0, 1, 32}, nullptr, false));
}

}  // namespace
}  // namespace spgrad::cuda
