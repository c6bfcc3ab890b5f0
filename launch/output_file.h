// A file that appears whole or not at all: written beside its final name as NAME.partial and renamed when
// complete. What is not a regular file (a pipe, /dev/null) is written to directly.
#pragma once

#include <cstdio>
#include <filesystem>
#include <string>
#include <string_view>

namespace aurora {

class OutputFile {
 public:
  /// Opens `path` for writing now, so that an unwritable one is known before any work; an empty path means
  /// standard output. Throws kIo naming the path and the system's reason.
  explicit OutputFile(std::filesystem::path path);
  /// Not committed: removes the partial file, unless `keep_partial` was called.
  ~OutputFile();
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;

  /// Throws kIo, e.g. on a full disk.
  void write(std::string_view bytes);
  void flush();
  /// Flushes, closes and renames. Throws kIo.
  void commit();
  /// What was written stays, flushed, under `partial_path`.
  void keep_partial() noexcept { keeps_partial_ = true; }

  const std::filesystem::path& path() const { return path_; }
  /// Where the bytes are until `commit`; the path itself when that is not a regular file.
  const std::filesystem::path& partial_path() const { return partial_path_; }

 private:
  [[noreturn]] void fail(const char* action) const;

  std::filesystem::path path_;
  std::filesystem::path partial_path_;
  std::FILE* file_ = nullptr;
  bool is_renamed_ = false;  // whether commit renames
  bool keeps_partial_ = false;
};

/// For a file that somebody else writes later: throws kIo when `path` cannot be created or replaced. Creates
/// nothing that stays.
void check_writable(const std::filesystem::path& path);

/// Where a file that exists once per model goes: `path` itself for a single model, otherwise with the model's
/// name before the extension (traffic.json -> traffic.tiny-mixtral.json).
std::filesystem::path path_for_model(const std::filesystem::path& path, const std::string& model,
                                     std::size_t num_models);

}  // namespace aurora
