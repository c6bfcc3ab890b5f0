#include "launch/output_file.h"

#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string>
#include <system_error>
#include <utility>

#include "kernels/error.h"

namespace aurora {

OutputFile::OutputFile(std::filesystem::path path) : path_(std::move(path)), partial_path_(path_) {
  if (path_.empty()) {
    file_ = stdout;
    return;
  }
  std::error_code failure;
  const std::filesystem::file_status status = std::filesystem::status(path_, failure);
  if (std::filesystem::is_directory(status)) {
    throw Error(ErrorKind::kIo, "cannot write " + path_.string() + ": it is a folder");
  }
  is_renamed_ = !std::filesystem::exists(status) || std::filesystem::is_regular_file(status);
  if (is_renamed_) {
    // A file that may not be written must not be replaced either.
    if (std::filesystem::exists(status) && access(path_.c_str(), W_OK) != 0) fail("write");
    partial_path_ += ".partial";
  }
  file_ = std::fopen(partial_path_.c_str(), "wb");
  if (file_ == nullptr) fail("write");
}

OutputFile::~OutputFile() {
  if (file_ == nullptr) return;
  if (file_ == stdout) {
    std::fflush(file_);
    return;
  }
  std::fclose(file_);
  if (is_renamed_ && !keeps_partial_) std::remove(partial_path_.c_str());
}

void OutputFile::write(std::string_view bytes) {
  if (std::fwrite(bytes.data(), 1, bytes.size(), file_) != bytes.size()) fail("write");
}

void OutputFile::flush() {
  if (std::fflush(file_) != 0) fail("write");
}

void OutputFile::commit() {
  flush();
  if (file_ == stdout) return;
  if (is_renamed_ && fsync(fileno(file_)) != 0) fail("write");
  if (std::fclose(std::exchange(file_, nullptr)) != 0) fail("close");
  if (is_renamed_ && std::rename(partial_path_.c_str(), path_.c_str()) != 0)
    fail("rename the partial file to");
}

void OutputFile::fail(const char* action) const {
  const std::string name = path_.empty() ? "standard output" : path_.string();
  throw Error(ErrorKind::kIo, "cannot " + std::string(action) + " " + name + ": " + std::strerror(errno));
}

void check_writable(const std::filesystem::path& path) { const OutputFile opened(path); }

std::filesystem::path path_for_model(const std::filesystem::path& path, const std::string& model,
                                     std::size_t num_models) {
  if (num_models == 1) return path;
  std::filesystem::path result = path;
  result.replace_extension();
  result += "." + model + path.extension().string();
  return result;
}

}  // namespace aurora
