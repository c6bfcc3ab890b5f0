// One line of a prompts file: a JSON object that asks for one answer. formats.md describes the fields; each
// line is judged alone, so that a bad one costs nothing but itself.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/request.h"

namespace aurora {

/// A line longer than this is refused without being kept in memory.
constexpr std::size_t kMaxPromptLineBytes = std::size_t{8} << 20;

/// What a line turned out to be. `custom_id` and `model` are filled as far as the line can be understood, so
/// that even a refused line gets an answer that its sender can match.
struct PromptLine {
  std::string custom_id;             // the line's number when it names none
  GenerationRequest request;         // `id` is for the caller to choose
  std::optional<std::string> error;  // set: the line is refused; starts with "line N: "
};

/// Judges `text` (without its line end), line `number` of the input counted from 1. `models` are the loaded
/// ones; a line that names none means the only one. Never throws for what the line says.
PromptLine parse_prompt_line(std::string_view text, std::int64_t number,
                             const std::vector<std::string>& models);

/// The record of a line that was longer than kMaxPromptLineBytes.
PromptLine overlong_prompt_line(std::int64_t number);

/// The first byte of `text` that is not part of valid UTF-8 (no surrogates, nothing above U+10FFFF, no
/// overlong forms); nothing when all of it is valid.
std::optional<std::size_t> find_invalid_utf8(std::string_view text);

}  // namespace aurora
