#include "runtime/plan_io/matrix_file.h"

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <stdexcept>
#include <vector>

#include "kernels/error.h"
#include "runtime/plan_io/text_file.h"

namespace aurora {
namespace {

/// A bound on what a file can make us allocate.
constexpr std::size_t kMaxGpus = 1 << 14;

constexpr std::string_view kBlanks = " \t\r\f\v";

/// A word of the file for a message: printable and short.
std::string quoted(std::string_view word) {
  std::string text = "\"";
  for (const char c : word.substr(0, 32)) text += c >= ' ' && c <= '~' ? c : '?';
  return text + (word.size() > 32 ? "...\"" : "\"");
}

class MatrixText {
 public:
  explicit MatrixText(std::string origin) : origin_(std::move(origin)) {}

  void add_line(std::string_view line) {
    ++line_number_;
    line = line.substr(0, line.find('#'));
    std::size_t num_words = 0;
    for (std::size_t at = line.find_first_not_of(kBlanks); at != std::string_view::npos;
         at = line.find_first_not_of(kBlanks, at)) {
      const std::size_t end = std::min(line.find_first_of(kBlanks, at), line.size());
      entries_.push_back(number(line.substr(at, end - at), ++num_words));
      at = end;
    }
    if (num_words == 0) return;
    if (++num_rows_ == 1) {
      num_columns_ = num_words;
      first_row_line_ = line_number_;
    }
    if (num_words != num_columns_) {
      refuse(std::to_string(num_words) + " numbers, but line " + std::to_string(first_row_line_) + " has " +
             std::to_string(num_columns_) + "; every row needs one for each receiver");
    }
  }

  TrafficMatrix finish() const {
    if (num_rows_ == 0) throw Error(ErrorKind::kFormat, origin_ + ": it holds no numbers");
    if (num_rows_ != num_columns_) {
      throw Error(ErrorKind::kFormat, origin_ + ": " + std::to_string(num_rows_) + " rows of " +
                                          std::to_string(num_columns_) +
                                          " numbers; a traffic matrix is square, a row for each sender");
    }
    try {
      return {static_cast<int>(num_rows_), entries_};
    } catch (const std::invalid_argument& error) {
      throw Error(ErrorKind::kFormat, origin_ + ": " + error.what());
    }
  }

 private:
  [[noreturn]] void refuse(const std::string& text) const {
    throw Error(ErrorKind::kFormat, origin_ + ": line " + std::to_string(line_number_) + ": " + text);
  }

  Bytes number(std::string_view word, std::size_t column) const {
    const std::string where = "column " + std::to_string(column) + ": ";
    if (column > kMaxGpus) refuse("more than " + std::to_string(kMaxGpus) + " numbers in a row");
    Bytes value = 0;
    const auto [end, failure] = std::from_chars(word.data(), word.data() + word.size(), value);
    if (failure == std::errc::result_out_of_range) {
      refuse(where + quoted(word) + " does not fit into 64 bits");
    }
    if (failure != std::errc() || end != word.data() + word.size()) {
      refuse(where + quoted(word) + " is not a whole number of bytes");
    }
    if (value < 0) refuse(where + std::to_string(value) + " is negative; bytes cannot be");
    return value;
  }

  std::string origin_;
  std::vector<Bytes> entries_;
  std::size_t line_number_ = 0;
  std::size_t first_row_line_ = 0;
  std::size_t num_rows_ = 0;
  std::size_t num_columns_ = 0;
};

}  // namespace

TrafficMatrix parse_matrix(std::string_view text, const std::string& origin) {
  MatrixText matrix(origin);
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    matrix.add_line(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return matrix.finish();
}

TrafficMatrix read_matrix_file(const std::filesystem::path& file) {
  return parse_matrix(read_whole_file(file), file.string());
}

std::string matrix_text(const TrafficMatrix& traffic) {
  std::string text;
  for (int source = 0; source < traffic.num_gpus(); ++source) {
    for (int destination = 0; destination < traffic.num_gpus(); ++destination) {
      text += (destination == 0 ? "" : " ") + std::to_string(traffic.at(source, destination));
    }
    text += '\n';
  }
  return text;
}

}  // namespace aurora
