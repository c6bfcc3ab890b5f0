#include "runtime/model/safetensors.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <cstring>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "kernels/error.h"
#include "runtime/model/strict_json.h"

namespace aurora {
namespace {

static_assert(std::endian::native == std::endian::little,
              "safetensors data is little endian and read as it lies");

constexpr std::uint64_t kLengthBytes = 8;               // of the header's length
constexpr std::uint64_t kMaxHeaderBytes = 100'000'000;  // as in the reference reader
constexpr std::size_t kMaxIndexBytes = 100'000'000;
constexpr std::string_view kMetadataKey = "__metadata__";

struct StoredDType {
  std::string_view name;
  std::uint64_t bits;
  std::optional<DType> readable_as;
};

// All dtypes of the format; those without a DType are skipped over and refused when they are asked for.
constexpr std::array<StoredDType, 21> kStoredDTypes = {{
    {"F32", 32, DType::kFloat32},
    {"F16", 16, DType::kFloat16},
    {"BF16", 16, DType::kBFloat16},
    {"I32", 32, DType::kInt32},
    {"BOOL", 8, {}},
    {"U8", 8, {}},
    {"I8", 8, {}},
    {"U16", 16, {}},
    {"I16", 16, {}},
    {"U32", 32, {}},
    {"U64", 64, {}},
    {"I64", 64, {}},
    {"F64", 64, {}},
    {"C64", 64, {}},
    {"F4", 4, {}},
    {"F6_E2M3", 6, {}},
    {"F6_E3M2", 6, {}},
    {"F8_E5M2", 8, {}},
    {"F8_E4M3", 8, {}},
    {"F8_E8M0", 8, {}},
    {"F8_E4M3FNUZ", 8, {}},
}};

// The bytes of one file: mapped, or owned when they came from memory.
class FileBytes {
 public:
  explicit FileBytes(std::vector<std::byte> contents) : owned_(std::move(contents)), bytes_(owned_) {}

  explicit FileBytes(const std::filesystem::path& file) {
    const int descriptor = ::open(file.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (descriptor < 0) fail_to_open(file, errno);
    struct stat status {};
    const bool is_known = ::fstat(descriptor, &status) == 0;
    if (is_known && S_ISREG(status.st_mode) && status.st_size > 0) {
      mapped_bytes_ = static_cast<std::size_t>(status.st_size);
      mapping_ = ::mmap(nullptr, mapped_bytes_, PROT_READ, MAP_PRIVATE, descriptor, 0);
    }
    const int failure = errno;
    ::close(descriptor);
    if (!is_known || mapping_ == MAP_FAILED) fail_to_open(file, failure);
    if (!S_ISREG(status.st_mode)) throw Error(ErrorKind::kIo, file.string() + ": not a regular file");
    bytes_ = {static_cast<const std::byte*>(mapping_), mapped_bytes_};
  }

  FileBytes(const FileBytes&) = delete;
  FileBytes& operator=(const FileBytes&) = delete;

  ~FileBytes() {
    if (mapping_ != nullptr && mapping_ != MAP_FAILED) ::munmap(mapping_, mapped_bytes_);
  }

  std::span<const std::byte> bytes() const { return bytes_; }

 private:
  [[noreturn]] static void fail_to_open(const std::filesystem::path& file, int failure) {
    const ErrorKind kind = failure == ENOENT ? ErrorKind::kNotFound : ErrorKind::kIo;
    throw Error(kind, file.string() + ": cannot be opened: " + std::strerror(failure));
  }

  std::vector<std::byte> owned_;
  void* mapping_ = nullptr;
  std::size_t mapped_bytes_ = 0;
  std::span<const std::byte> bytes_;
};

// A tensor as the header describes it, before and after its bytes are found.
struct Entry {
  StoredTensor tensor;
  std::string_view stored_dtype;
  bool is_readable = false;
  std::uint64_t begin = 0;  // offsets into the data
  std::uint64_t end = 0;
};

using Entries = std::map<std::string, Entry, std::less<>>;

std::string shape_text(std::span<const std::int64_t> shape) {
  std::string text = "[";
  for (const std::int64_t extent : shape) text += (text.size() > 1 ? ", " : "") + std::to_string(extent);
  return text + "]";
}

std::string offsets_text(const Entry& entry) {
  return "data_offsets [" + std::to_string(entry.begin) + ", " + std::to_string(entry.end) + ")";
}

// The checks of one file's header. Every message starts with the file and, where there is one, the tensor.
class HeaderReader {
 public:
  HeaderReader(std::span<const std::byte> file_bytes, const std::filesystem::path& file)
      : file_bytes_(file_bytes), file_(file) {}

  Entries read() {
    const std::string_view text = header_text();
    data_ = file_bytes_.subspan(kLengthBytes + text.size());
    const nlohmann::json header = parse_strict_json(text, file_.string() + " (header)");
    if (!header.is_object()) fail("the header is " + describe_json(header) + ", not an object");
    Entries entries;
    for (const auto& [name, description] : header.items()) {
      if (name == kMetadataKey) {
        require_metadata(description);
      } else {
        entries.emplace(name, read_entry(name, description));
      }
    }
    require_exact_cover(entries);
    return entries;
  }

 private:
  [[noreturn]] void fail(const std::string& text) const {
    throw Error(ErrorKind::kFormat, file_.string() + ": " + text);
  }
  [[noreturn]] void fail(const std::string& tensor, const std::string& text) const {
    fail("tensor " + quote_for_message(tensor) + ": " + text);
  }

  std::string_view header_text() const {
    const std::uint64_t size = file_bytes_.size();
    if (size < kLengthBytes) {
      fail("is " + std::to_string(size) +
           " bytes long, but a safetensors file starts with 8 bytes of header length");
    }
    std::uint64_t length = 0;
    std::memcpy(&length, file_bytes_.data(), sizeof(length));
    if (length > kMaxHeaderBytes) {
      fail("claims a header of " + std::to_string(length) + " bytes, the limit is " +
           std::to_string(kMaxHeaderBytes) + "; it is not a safetensors file or is damaged");
    }
    if (length > size - kLengthBytes) {
      fail("claims a header of " + std::to_string(length) + " bytes, but only " +
           std::to_string(size - kLengthBytes) +
           " bytes follow its length; the file is truncated or damaged");
    }
    return {reinterpret_cast<const char*>(file_bytes_.data()) + kLengthBytes,
            static_cast<std::size_t>(length)};
  }

  void require_metadata(const nlohmann::json& metadata) const {
    if (!metadata.is_object()) fail("__metadata__ is " + describe_json(metadata) + ", not an object");
    for (const auto& [key, value] : metadata.items()) {
      if (!value.is_string()) {
        fail("__metadata__ key " + quote_for_message(key) + " is " + describe_json(value) + ", not a string");
      }
    }
  }

  Entry read_entry(const std::string& name, const nlohmann::json& description) const {
    if (!description.is_object())
      fail(name, "is described by " + describe_json(description) + ", not an object");
    for (const char* key : {"dtype", "shape", "data_offsets"}) {
      if (!description.contains(key)) fail(name, std::string("has no ") + key);
    }
    if (description.size() != 3) fail(name, "has keys other than dtype, shape and data_offsets");
    Entry entry;
    const StoredDType& dtype = read_dtype(name, description["dtype"]);
    entry.stored_dtype = dtype.name;
    entry.is_readable = dtype.readable_as.has_value();
    entry.tensor.dtype = dtype.readable_as.value_or(DType::kFloat32);
    entry.tensor.file = file_;
    read_offsets(name, description["data_offsets"], entry);
    const std::uint64_t shape_bytes = read_shape(name, description["shape"], dtype, entry);
    if (entry.end - entry.begin != shape_bytes) {
      fail(name, offsets_text(entry) + " are " + std::to_string(entry.end - entry.begin) +
                     " bytes, but shape " + shape_text(entry.tensor.shape) + " in " +
                     std::string(dtype.name) + " takes " + std::to_string(shape_bytes));
    }
    entry.tensor.bytes = data_.subspan(entry.begin, shape_bytes);
    return entry;
  }

  const StoredDType& read_dtype(const std::string& name, const nlohmann::json& value) const {
    const std::string text = value.is_string() ? value.get<std::string>() : std::string();
    const auto found = std::find_if(kStoredDTypes.begin(), kStoredDTypes.end(),
                                    [&](const StoredDType& dtype) { return dtype.name == text; });
    if (found == kStoredDTypes.end())
      fail(name, "dtype is " + describe_json(value) + ", which is not one of the format");
    return *found;
  }

  void read_offsets(const std::string& name, const nlohmann::json& value, Entry& entry) const {
    if (!value.is_array() || value.size() != 2 || !value[0].is_number_unsigned() ||
        !value[1].is_number_unsigned()) {
      fail(name, "data_offsets must be two non-negative integers");
    }
    entry.begin = value[0].get<std::uint64_t>();
    entry.end = value[1].get<std::uint64_t>();
    if (entry.begin > entry.end) fail(name, offsets_text(entry) + " end before they begin");
    if (entry.end > data_.size()) {
      fail(name, offsets_text(entry) + " reach beyond the " + std::to_string(data_.size()) +
                     " bytes of data in the file; it is truncated or its header lies");
    }
  }

  // Fills entry.tensor.shape and returns the bytes it takes. The product is kept below 2^60 elements, so that
  // neither it nor the bits overflow.
  std::uint64_t read_shape(const std::string& name, const nlohmann::json& value, const StoredDType& dtype,
                           Entry& entry) const {
    constexpr std::uint64_t kMaxElements = std::uint64_t{1} << 57;  // times 64 bits stays below 2^63
    if (!value.is_array()) fail(name, "shape is " + describe_json(value) + ", not an array");
    std::uint64_t num_elements = 1;
    for (const nlohmann::json& extent : value) {
      if (!extent.is_number_unsigned())
        fail(name, "shape has " + describe_json(extent) + ", not a non-negative integer");
      const auto count = extent.get<std::uint64_t>();
      if (count > kMaxElements || (count != 0 && num_elements > kMaxElements / count)) {
        fail(name, "shape has more elements than can be addressed (extent " + std::to_string(count) + ")");
      }
      num_elements *= count;
      entry.tensor.shape.push_back(static_cast<std::int64_t>(count));
    }
    if (num_elements * dtype.bits % 8 != 0) {
      fail(name, "shape " + shape_text(entry.tensor.shape) + " in " + std::string(dtype.name) +
                     " is not a whole number of bytes");
    }
    return num_elements * dtype.bits / 8;
  }

  // Invariant of the loop: the tensors seen so far cover exactly [0, covered).
  void require_exact_cover(const Entries& entries) const {
    std::vector<const Entries::value_type*> ordered;
    for (const auto& entry : entries) ordered.push_back(&entry);
    std::sort(ordered.begin(), ordered.end(), [](const auto* left, const auto* right) {
      return std::pair(left->second.begin, left->second.end) <
             std::pair(right->second.begin, right->second.end);
    });
    std::uint64_t covered = 0;
    const std::string* previous = nullptr;
    for (const auto* named : ordered) {
      const auto& [name, entry] = *named;
      if (entry.begin < covered) {
        fail(name, offsets_text(entry) + " overlap tensor " + quote_for_message(*previous) +
                       ", which ends at " + std::to_string(covered));
      }
      if (entry.begin > covered) {
        fail(name, offsets_text(entry) + " leave a hole: no tensor holds the bytes from " +
                       std::to_string(covered));
      }
      covered = entry.end;
      previous = &name;
    }
    if (covered != data_.size()) {
      fail("the tensors end at byte " + std::to_string(covered) + " of the data, but the file holds " +
           std::to_string(data_.size()));
    }
  }

  std::span<const std::byte> file_bytes_;
  const std::filesystem::path& file_;
  std::span<const std::byte> data_;
};

// Which tensors each shard must hold: shard file name -> tensor names.
std::map<std::string, std::vector<std::string>> read_index(const std::filesystem::path& index_file) {
  const std::string origin = index_file.string();
  const nlohmann::json index = parse_strict_json(read_text_file(index_file, kMaxIndexBytes), origin);
  if (!index.is_object() || !index.contains("weight_map") || !index["weight_map"].is_object()) {
    throw Error(ErrorKind::kFormat,
                origin + ": has no object \"weight_map\" from tensor names to shard files");
  }
  std::map<std::string, std::vector<std::string>> shards;
  for (const auto& [tensor, shard] : index["weight_map"].items()) {
    const std::string name = shard.is_string() ? shard.get<std::string>() : std::string();
    // A shard lies beside its index; a path could lead anywhere.
    const bool is_plain =
        !name.empty() && name.find_first_of(std::string_view("/\\\0", 3)) == std::string::npos;
    if (!is_plain || !name.ends_with(".safetensors")) {
      throw Error(ErrorKind::kFormat, origin + ": weight_map of tensor " + quote_for_message(tensor) +
                                          " is " + describe_json(shard) +
                                          ", not the name of a .safetensors file beside it");
    }
    shards[name].push_back(tensor);
  }
  if (shards.empty()) throw Error(ErrorKind::kFormat, origin + ": weight_map is empty");
  return shards;
}

// Element-wise copies. memcpy in and out, because stored bytes may be unaligned; compilers vectorise it.
template <typename Source, typename Target, typename Convert>
void convert_elements(std::span<const std::byte> source, std::byte* target, Convert convert) {
  const std::size_t count = source.size() / sizeof(Source);
  for (std::size_t i = 0; i < count; ++i) {
    Source value{};
    std::memcpy(&value, source.data() + i * sizeof(Source), sizeof(Source));
    const Target converted = convert(value);
    std::memcpy(target + i * sizeof(Target), &converted, sizeof(Target));
  }
}

void copy_converted(const StoredTensor& stored, const Tensor& destination) {
  using Half = std::uint16_t;
  const auto source = stored.bytes;
  std::byte* const target = destination.bytes();
  const bool to_float = destination.dtype() == DType::kFloat32;
  if (source.empty()) return;
  if (stored.dtype == destination.dtype()) {
    std::memcpy(target, source.data(), source.size());
  } else if (stored.dtype == DType::kFloat32) {
    convert_elements<float, Half>(source, target, [](float value) { return float_to_bfloat16(value); });
  } else if (stored.dtype == DType::kBFloat16) {
    convert_elements<Half, float>(source, target, [](Half bits) { return bfloat16_to_float(bits); });
  } else if (to_float) {
    convert_elements<Half, float>(source, target, [](Half bits) { return float16_to_float(bits); });
  } else {
    convert_elements<Half, Half>(source, target,
                                 [](Half bits) { return float_to_bfloat16(float16_to_float(bits)); });
  }
}

bool has_shape(const StoredTensor& stored, const Tensor& destination) {
  if (static_cast<int>(stored.shape.size()) != destination.num_dims()) return false;
  for (int i = 0; i < destination.num_dims(); ++i) {
    if (stored.shape[static_cast<std::size_t>(i)] != destination.dim(i)) return false;
  }
  return true;
}

}  // namespace

struct Checkpoint::Contents {
  std::filesystem::path origin;  // folder or file, for messages
  std::vector<std::unique_ptr<FileBytes>> files;
  Entries entries;

  void add_file(const std::filesystem::path& file, std::unique_ptr<FileBytes> bytes) {
    entries = HeaderReader(bytes->bytes(), file).read();
    files.push_back(std::move(bytes));
  }

  void add_shard(const std::filesystem::path& index_file, const std::string& shard,
                 const std::vector<std::string>& tensors) {
    const std::filesystem::path file = origin / shard;
    if (!std::filesystem::exists(file)) {
      throw Error(ErrorKind::kNotFound, file.string() + ": no such file, but " + index_file.string() +
                                            " places " + std::to_string(tensors.size()) +
                                            " tensors there, the first " +
                                            quote_for_message(tensors.front()));
    }
    auto bytes = std::make_unique<FileBytes>(file);
    Entries of_shard = HeaderReader(bytes->bytes(), file).read();
    for (const std::string& tensor : tensors) {
      auto node = of_shard.extract(tensor);
      if (node.empty()) {
        throw Error(ErrorKind::kFormat, file.string() + ": does not hold tensor " +
                                            quote_for_message(tensor) + ", though " + index_file.string() +
                                            " places it there");
      }
      entries.insert(std::move(node));
    }
    files.push_back(std::move(bytes));
  }

  const Entry& find(std::string_view name) const {
    const auto found = entries.find(name);
    if (found == entries.end()) {
      throw Error(ErrorKind::kNotFound, origin.string() + ": holds no tensor " + quote_for_message(name) +
                                            " (it holds " + std::to_string(entries.size()) + " others)");
    }
    return found->second;
  }
};

Checkpoint::Checkpoint(std::unique_ptr<Contents> contents) : contents_(std::move(contents)) {}
Checkpoint::Checkpoint(Checkpoint&&) noexcept = default;
Checkpoint& Checkpoint::operator=(Checkpoint&&) noexcept = default;
Checkpoint::~Checkpoint() = default;

Checkpoint Checkpoint::open(const std::filesystem::path& folder) {
  if (std::error_code failure; !std::filesystem::is_directory(folder, failure)) {
    throw Error(ErrorKind::kNotFound, folder.string() + ": no such checkpoint folder");
  }
  const auto single = folder / "model.safetensors";
  const auto index_file = folder / "model.safetensors.index.json";
  auto contents = std::make_unique<Contents>();
  contents->origin = folder;
  if (std::filesystem::exists(single)) {
    contents->add_file(single, std::make_unique<FileBytes>(single));
  } else if (std::filesystem::exists(index_file)) {
    for (const auto& [shard, tensors] : read_index(index_file))
      contents->add_shard(index_file, shard, tensors);
  } else {
    throw Error(
        ErrorKind::kNotFound,
        folder.string() +
            ": has neither model.safetensors nor model.safetensors.index.json; other checkpoint formats "
            "must be converted to safetensors first");
  }
  return Checkpoint(std::move(contents));
}

Checkpoint Checkpoint::open_file(const std::filesystem::path& file) {
  auto contents = std::make_unique<Contents>();
  contents->origin = file;
  contents->add_file(file, std::make_unique<FileBytes>(file));
  return Checkpoint(std::move(contents));
}

Checkpoint Checkpoint::parse(std::vector<std::byte> bytes, const std::filesystem::path& origin) {
  auto contents = std::make_unique<Contents>();
  contents->origin = origin;
  contents->add_file(origin, std::make_unique<FileBytes>(std::move(bytes)));
  return Checkpoint(std::move(contents));
}

bool Checkpoint::contains(std::string_view name) const { return contents_->entries.contains(name); }

std::vector<std::string> Checkpoint::names() const {
  std::vector<std::string> names;
  for (const auto& [name, entry] : contents_->entries) names.push_back(name);
  return names;
}

const StoredTensor& Checkpoint::find(std::string_view name) const {
  const Entry& entry = contents_->find(name);
  if (!entry.is_readable) {
    throw Error(ErrorKind::kUnsupported, entry.tensor.file.string() + ": tensor " + quote_for_message(name) +
                                             " is stored as " + std::string(entry.stored_dtype) +
                                             "; only F32, F16, BF16 and I32 can be read");
  }
  return entry.tensor;
}

void Checkpoint::read(std::string_view name, const Tensor& destination) const {
  const StoredTensor& stored = find(name);
  const auto describe = [&] { return stored.file.string() + ": tensor " + quote_for_message(name); };
  if (stored.dtype == DType::kInt32) {
    throw Error(ErrorKind::kUnsupported, describe() + " is stored as I32, but a tensor of floats is needed");
  }
  if (destination.dtype() != DType::kFloat32 && destination.dtype() != DType::kBFloat16) {
    throw Error(ErrorKind::kInvalidArgument,
                describe() + " cannot be read into " + std::string(dtype_name(destination.dtype())));
  }
  if (!has_shape(stored, destination)) {
    std::vector<std::int64_t> wanted;
    for (int i = 0; i < destination.num_dims(); ++i) wanted.push_back(destination.dim(i));
    throw Error(ErrorKind::kFormat, describe() + " has shape " + shape_text(stored.shape) + ", but " +
                                        shape_text(wanted) + " is needed");
  }
  copy_converted(stored, destination);
}

}  // namespace aurora
