// Runs a fuzz target without a fuzzer: every seed as it is, then seeded mutations of the seeds.
//
//     fuzz_NAME [--mutations N] [--seed S] SEED_FILE_OR_FOLDER...
//
// The mutation that runs is written to a file before it runs, and the file is removed when all went well:
// what crashes the target is there to be looked at and to be given to the target again.
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <random>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

namespace {

using Bytes = std::vector<std::uint8_t>;

struct Arguments {
  std::uint64_t num_mutations = 0;
  std::uint64_t seed = 1;
  std::vector<std::filesystem::path> seeds;
};

Arguments parse_arguments(int argc, char** argv) {
  Arguments arguments;
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    if ((argument == "--mutations" || argument == "--seed") && i + 1 < argc) {
      (argument == "--seed" ? arguments.seed : arguments.num_mutations) = std::stoull(argv[++i]);
    } else {
      arguments.seeds.emplace_back(argument);
    }
  }
  return arguments;
}

std::vector<Bytes> read_seeds(const std::vector<std::filesystem::path>& paths) {
  std::vector<std::filesystem::path> files;
  for (const auto& path : paths) {
    if (!std::filesystem::is_directory(path)) {
      files.push_back(path);
      continue;
    }
    for (const auto& entry : std::filesystem::directory_iterator(path)) files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());  // one order on every machine
  std::vector<Bytes> seeds;
  for (const auto& file : files) {
    std::ifstream stream(file, std::ios::binary);
    if (!stream) throw std::runtime_error("cannot read seed " + file.string());
    seeds.emplace_back(std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>());
  }
  return seeds;
}

class Mutator {
 public:
  explicit Mutator(std::uint64_t seed) : random_(seed) {}

  /// One seed with one to eight changes.
  Bytes mutate(const std::vector<Bytes>& seeds) {
    Bytes bytes = seeds[below(seeds.size())];
    for (std::size_t change = 1 + below(8); change > 0; --change) change_once(bytes, seeds);
    return bytes;
  }

 private:
  // random_() % n rather than a distribution: those differ between standard libraries.
  std::size_t below(std::size_t limit) {
    return limit == 0 ? 0 : static_cast<std::size_t>(random_() % limit);
  }

  // Half of the places are near the start, where lengths and headers are.
  std::size_t place_in(const Bytes& bytes) {
    return below(2) == 0 ? below(std::min<std::size_t>(bytes.size(), 64)) : below(bytes.size());
  }

  void change_once(Bytes& bytes, const std::vector<Bytes>& seeds) {
    constexpr std::uint8_t kInteresting[] = {0,   1,   8,   ' ', '"', ',', '-', '.', '0', '9',
                                             '[', ']', 'e', '{', '}', ':', 127, 128, 255, '\n'};
    const std::size_t place = place_in(bytes);
    const auto at = bytes.begin() + static_cast<std::ptrdiff_t>(place);
    const std::size_t length = below(std::min<std::size_t>(bytes.size() - place, 40) + 1);
    const auto end = at + static_cast<std::ptrdiff_t>(length);
    const std::uint8_t interesting = kInteresting[below(std::size(kInteresting))];
    switch (below(7)) {
      case 0:
        if (!bytes.empty()) *at = static_cast<std::uint8_t>(*at ^ (1U << below(8)));
        break;
      case 1:
        if (!bytes.empty()) *at = interesting;
        break;
      case 2:
        bytes.insert(at, interesting);
        break;
      case 3:
        bytes.erase(at, end);
        break;
      case 4: {
        const Bytes copy(at, end);
        bytes.insert(at, copy.begin(), copy.end());
        break;
      }
      case 5:
        bytes.resize(place);
        break;
      default: {
        const Bytes& other = seeds[below(seeds.size())];
        const std::size_t from = below(other.size());
        const std::size_t count = below(std::min<std::size_t>(other.size() - from, 64) + 1);
        const auto first = other.begin() + static_cast<std::ptrdiff_t>(from);
        const Bytes piece(first, first + static_cast<std::ptrdiff_t>(count));
        bytes.insert(at, piece.begin(), piece.end());
      }
    }
  }

  std::mt19937_64 random_;
};

/// A file that holds the input of the moment, rewritten in place: a new file for each would take longer than
/// most inputs.
class RunningInput {
 public:
  explicit RunningInput(std::filesystem::path file)
      : file_(std::move(file)),
        descriptor_(open(file_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644)) {
    if (descriptor_ < 0) throw std::runtime_error("cannot write " + file_.string());
  }
  RunningInput(const RunningInput&) = delete;
  RunningInput& operator=(const RunningInput&) = delete;
  ~RunningInput() { close(descriptor_); }

  void run(const Bytes& bytes) const {
    const bool is_kept =
        pwrite(descriptor_, bytes.data(), bytes.size(), 0) == static_cast<ssize_t>(bytes.size()) &&
        ftruncate(descriptor_, static_cast<off_t>(bytes.size())) == 0;
    if (!is_kept) throw std::runtime_error("cannot write " + file_.string());
    LLVMFuzzerTestOneInput(bytes.data(), bytes.size());
  }

  void remove() const { std::filesystem::remove(file_); }

 private:
  std::filesystem::path file_;
  int descriptor_;
};

void replay(const Arguments& arguments, const std::filesystem::path& running) {
  const std::vector<Bytes> seeds = read_seeds(arguments.seeds);
  if (seeds.empty()) throw std::runtime_error("no seeds");
  std::printf("%zu seeds, %llu mutations, seed %llu, the running one in %s\n", seeds.size(),
              static_cast<unsigned long long>(arguments.num_mutations),
              static_cast<unsigned long long>(arguments.seed), running.c_str());
  std::fflush(stdout);
  const RunningInput input(running);
  for (const Bytes& seed : seeds) input.run(seed);
  Mutator mutator(arguments.seed);
  for (std::uint64_t i = 0; i < arguments.num_mutations; ++i) input.run(mutator.mutate(seeds));
  input.remove();
}

}  // namespace

int main(int argc, char** argv) {
  try {
    const auto name =
        std::filesystem::path(argv[0]).filename().string() + ".running." + std::to_string(getpid());
    replay(parse_arguments(argc, argv), std::filesystem::temp_directory_path() / name);
  } catch (const std::exception& failure) {
    std::fprintf(stderr, "%s: %s\n", argv[0], failure.what());
    return 1;
  }
  return 0;
}
