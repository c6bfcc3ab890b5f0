// Plain bytes for the control plane between ranks of one job: same machine type, same build, so values travel
// in their memory representation. Reading checks every bound; a message that is too short is a broken
// invariant.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include "kernels/error.h"

namespace aurora {

class ByteWriter {
 public:
  template <class T>
  requires std::is_trivially_copyable_v<T>
  void write(const T& value) {
    const std::size_t start = bytes_.size();
    bytes_.resize(start + sizeof(T));
    std::memcpy(bytes_.data() + start, &value, sizeof(T));
  }
  template <class T>
  requires std::is_trivially_copyable_v<T>
  void write_all(std::span<const T> values) {
    write<std::uint64_t>(values.size());
    const auto bytes = std::as_bytes(values);
    bytes_.insert(bytes_.end(), bytes.begin(), bytes.end());
  }
  template <class T>
  void write(const std::vector<T>& values) {
    write_all<T>(values);
  }
  void write(const std::string& text) { write_all<char>(text); }

  std::span<const std::byte> bytes() const { return bytes_; }

 private:
  std::vector<std::byte> bytes_;
};

class ByteReader {
 public:
  explicit ByteReader(std::span<const std::byte> bytes) : bytes_(bytes) {}

  template <class T>
  requires std::is_trivially_copyable_v<T> T read() {
    T value;
    std::memcpy(&value, take(sizeof(T)).data(), sizeof(T));
    return value;
  }
  template <class T>
  std::vector<T> read_vector() {
    const auto count = read<std::uint64_t>();
    check(count <= bytes_.size() / sizeof(T), "a control message is as long as it says");
    std::vector<T> values(count);
    const auto source = take(count * sizeof(T));
    if (count > 0) std::memcpy(values.data(), source.data(), source.size());
    return values;
  }
  std::string read_string() {
    const auto chars = read_vector<char>();
    return {chars.begin(), chars.end()};
  }
  bool is_at_end() const { return bytes_.empty(); }

 private:
  std::span<const std::byte> take(std::size_t count) {
    check(count <= bytes_.size(), "a control message is as long as it says");
    const auto taken = bytes_.first(count);
    bytes_ = bytes_.subspan(count);
    return taken;
  }

  std::span<const std::byte> bytes_;
};

}  // namespace aurora
