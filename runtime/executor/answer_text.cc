#include "runtime/executor/answer_text.h"

#include <algorithm>

namespace aurora {
namespace {

/// Length of the longest suffix of `text` that is a proper prefix of `stop`.
std::size_t partial_match(const std::string& text, const std::string& stop) {
  for (std::size_t length = std::min(text.size(), stop.size() - 1); length > 0; --length) {
    if (text.compare(text.size() - length, length, stop, 0, length) == 0) return length;
  }
  return 0;
}

}  // namespace

AnswerText::AnswerText(const Tokenizer* tokenizer, std::vector<std::string> stops)
    : stops_(std::move(stops)) {
  if (tokenizer != nullptr) decoder_.emplace(*tokenizer, std::span<const TokenId>{});
  std::erase_if(stops_, [](const std::string& stop) { return stop.empty(); });
}

std::string AnswerText::push(TokenId token) {
  if (!decoder_ || is_stopped_) return {};
  return absorb(decoder_->push(token));
}

std::string AnswerText::finish() {
  if (!decoder_ || is_stopped_) return {};
  std::string text = absorb(decoder_->finish());
  if (!is_stopped_) text += emit_up_to(pending_.size());
  return text;
}

std::string AnswerText::absorb(const std::string& piece) {
  pending_ += piece;
  std::size_t first = std::string::npos;
  for (const std::string& stop : stops_) first = std::min(first, pending_.find(stop));
  if (first != std::string::npos) {
    is_stopped_ = true;
    return emit_up_to(first);
  }
  std::size_t held_back = 0;
  for (const std::string& stop : stops_) held_back = std::max(held_back, partial_match(pending_, stop));
  return emit_up_to(pending_.size() - held_back);
}

std::string AnswerText::emit_up_to(std::size_t end) {
  std::string text = pending_.substr(0, end);
  pending_.erase(0, end);
  return text;
}

}  // namespace aurora
