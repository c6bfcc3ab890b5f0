#include "runtime/model/tokenizer_file.h"

#include <cstdint>
#include <limits>
#include <nlohmann/json.hpp>
#include <utility>

#include "kernels/error.h"
#include "runtime/model/strict_json.h"
#include "runtime/model/unicode_text.h"

namespace aurora {
namespace {

using Json = nlohmann::json;

/// Sequences may contain sequences; no published file goes deeper than two.
constexpr int kDeepestSequence = 16;

/// A value and where it stands, so that every message can say so.
class Node {
 public:
  Node(const Json& value, std::string path, const std::string& origin)
      : value_(&value), path_(std::move(path)), origin_(&origin) {}

  [[noreturn]] void refuse(ErrorKind kind, const std::string& problem) const {
    throw Error(kind, *origin_ + ": " + (path_.empty() ? "" : path_ + ": ") + problem);
  }
  [[noreturn]] void expect(const std::string& what) const {
    refuse(ErrorKind::kFormat, "expected " + what + ", found " + describe_json(*value_));
  }

  const Json& json() const { return *value_; }
  bool is_null() const { return value_->is_null(); }

  /// The member `key`; absent and null are the same.
  std::optional<Node> find(const std::string& key) const {
    if (!value_->is_object()) expect("an object");
    const auto member = value_->find(key);
    if (member == value_->end() || member->is_null()) return std::nullopt;
    return Node(*member, path_.empty() ? key : path_ + "." + key, *origin_);
  }
  /// `value`, which is the member `key` of an object whose keys are data.
  Node entry(const std::string& key, const Json& value) const {
    return Node(value, path_ + "[" + quote_for_message(key) + "]", *origin_);
  }
  Node get(const std::string& key) const {
    auto member = find(key);
    if (!member) refuse(ErrorKind::kFormat, "key " + quote_for_message(key) + " is missing");
    return *std::move(member);
  }
  Node element(std::size_t index) const {
    return Node((*value_)[index], path_ + "[" + std::to_string(index) + "]", *origin_);
  }
  std::size_t array_size() const {
    if (!value_->is_array()) expect("an array");
    return value_->size();
  }

  const std::string& string() const {
    if (!value_->is_string()) expect("a string");
    return value_->get_ref<const std::string&>();
  }
  bool boolean() const {
    if (!value_->is_boolean()) expect("true or false");
    return value_->get<bool>();
  }
  std::int64_t integer(std::int64_t limit) const {
    if (!value_->is_number_unsigned() || value_->get<std::uint64_t>() > static_cast<std::uint64_t>(limit)) {
      expect("an integer from 0 to " + std::to_string(limit));
    }
    return value_->get<std::int64_t>();
  }
  TokenId token_id() const {
    // One below the maximum, so that "highest id + 1" is an id's type too.
    return static_cast<TokenId>(integer(std::numeric_limits<TokenId>::max() - 1));
  }
  char32_t character() const {
    const auto character = single_character(string());
    if (!character) expect("a string of one character");
    return *character;
  }

  bool boolean_or(const std::string& key, bool otherwise) const {
    const auto member = find(key);
    return member ? member->boolean() : otherwise;
  }

 private:
  const Json* value_;
  std::string path_;
  const std::string* origin_;
};

/// Calls `read` for each member of a list that may hold Sequences of further lists under `list_key`.
template <typename Read>
void for_each_step(const Node& node, const std::string& list_key, Read&& read, int depth = 0) {
  const std::string& type = node.get("type").string();
  if (type != "Sequence") {
    read(node, type);
    return;
  }
  if (depth == kDeepestSequence) {
    node.refuse(ErrorKind::kUnsupported,
                "sequences are nested deeper than " + std::to_string(kDeepestSequence));
  }
  const Node list = node.get(list_key);
  const std::size_t size = list.array_size();
  for (std::size_t i = 0; i < size; ++i) for_each_step(list.element(i), list_key, read, depth + 1);
}

[[noreturn]] void refuse_type(const Node& node, const std::string& type, const std::string& supported) {
  node.refuse(ErrorKind::kUnsupported,
              "type " + quote_for_message(type) + " is not supported; supported are " + supported);
}

TextPattern read_pattern(const Node& node) {
  const auto literal = node.find("String");
  const auto regex = node.find("Regex");
  if (literal.has_value() == regex.has_value()) node.expect("an object with either 'String' or 'Regex'");
  try {
    return literal ? TextPattern::literal(literal->string()) : TextPattern::regex(regex->string());
  } catch (const Error& error) {
    node.refuse(error.kind(), error.what());
  }
}

Normalizer read_normalizer(const Node& node, const std::string& type) {
  if (type == "Prepend") return PrependNormalizer{node.get("prepend").string()};
  if (type == "Replace")
    return ReplaceNormalizer{read_pattern(node.get("pattern")), node.get("content").string()};
  if (type == "NFC") return UnicodeNormalizer{NormalForm::kNfc};
  if (type == "NFKC") return UnicodeNormalizer{NormalForm::kNfkc};
  if (type == "Strip")
    return StripNormalizer{node.get("strip_left").boolean(), node.get("strip_right").boolean()};
  refuse_type(node, type, "Prepend, Replace, NFC, NFKC, Strip, Sequence");
}

SplitBehavior read_behavior(const Node& node) {
  const std::string& name = node.string();
  if (name == "Removed") return SplitBehavior::kRemoved;
  if (name == "Isolated") return SplitBehavior::kIsolated;
  if (name == "MergedWithPrevious") return SplitBehavior::kMergedWithPrevious;
  if (name == "MergedWithNext") return SplitBehavior::kMergedWithNext;
  if (name == "Contiguous") return SplitBehavior::kContiguous;
  node.expect("Removed, Isolated, MergedWithPrevious, MergedWithNext or Contiguous");
}

PrependScheme read_prepend_scheme(const Node& node) {
  PrependScheme scheme = PrependScheme::kAlways;
  if (const auto member = node.find("prepend_scheme")) {
    const std::string& name = member->string();
    if (name != "always" && name != "first" && name != "never") member->expect("always, first or never");
    scheme = name == "always"  ? PrependScheme::kAlways
             : name == "first" ? PrependScheme::kFirst
                               : PrependScheme::kNever;
  }
  if (!node.boolean_or("add_prefix_space", true) && scheme != PrependScheme::kNever) {
    node.refuse(ErrorKind::kFormat, "add_prefix_space is false but prepend_scheme is not 'never'");
  }
  return scheme;
}

std::string replacement_mark(const Node& node) {
  std::string mark;
  append_utf8(node.get("replacement").character(), mark);
  return mark;
}

PreTokenizer read_pre_tokenizer(const Node& node, const std::string& type) {
  if (type == "Split") {
    return SplitPreTokenizer{read_pattern(node.get("pattern")), read_behavior(node.get("behavior")),
                             node.get("invert").boolean()};
  }
  if (type == "ByteLevel") {
    return ByteLevelPreTokenizer{node.get("add_prefix_space").boolean(), TextPattern::regex(kGpt2Words),
                                 node.boolean_or("use_regex", true)};
  }
  if (type == "Digits") return DigitsPreTokenizer{node.get("individual_digits").boolean()};
  if (type == "Metaspace") {
    return MetaspacePreTokenizer{TextPattern::literal(" "), TextPattern::literal(replacement_mark(node)),
                                 read_prepend_scheme(node), node.boolean_or("split", true)};
  }
  refuse_type(node, type, "Split, ByteLevel, Digits, Metaspace, Sequence");
}

Decoder read_decoder(const Node& node, const std::string& type) {
  constexpr std::int64_t kLongestStrip = 1 << 20;
  if (type == "ByteLevel") return ByteLevelDecoder{};
  if (type == "ByteFallback") return ByteFallbackDecoder{};
  if (type == "Fuse") return FuseDecoder{};
  if (type == "Strip") {
    return StripDecoder{node.get("content").character(),
                        static_cast<std::size_t>(node.get("start").integer(kLongestStrip)),
                        static_cast<std::size_t>(node.get("stop").integer(kLongestStrip))};
  }
  if (type == "Replace")
    return ReplaceDecoder{read_pattern(node.get("pattern")), node.get("content").string()};
  if (type == "Metaspace") {
    return MetaspaceDecoder{node.get("replacement").character(),
                            read_prepend_scheme(node) != PrependScheme::kNever};
  }
  refuse_type(node, type, "ByteLevel, ByteFallback, Fuse, Strip, Replace, Metaspace, Sequence");
}

std::vector<std::optional<TokenId>> read_template(const Node& node) {
  std::vector<std::optional<TokenId>> ids;
  const Node single = node.get("single");
  const Node special_tokens = node.get("special_tokens");
  if (!special_tokens.json().is_object()) special_tokens.expect("an object");
  const std::size_t size = single.array_size();
  for (std::size_t i = 0; i < size; ++i) {
    const Node piece = single.element(i);
    if (const auto sequence = piece.find("Sequence")) {
      const Node id = sequence->get("id");
      if (id.string() != "A") id.expect("\"A\", the only text there is");
      ids.push_back(std::nullopt);
    } else {
      const Node id = piece.get("SpecialToken").get("id");
      const auto special = special_tokens.json().find(id.string());
      if (special == special_tokens.json().end()) id.expect("a key of special_tokens");
      const Node token = special_tokens.entry(id.string(), *special).get("ids");
      const std::size_t count = token.array_size();
      for (std::size_t k = 0; k < count; ++k) ids.push_back(token.element(k).token_id());
    }
  }
  return ids;
}

void read_post_processor(const Node& node, TokenizerFile& file) {
  bool has_template = false;
  for_each_step(node, "processors", [&](const Node& step, const std::string& type) {
    if (type == "ByteLevel") return;  // it corrects offsets only
    if (type != "TemplateProcessing") refuse_type(step, type, "TemplateProcessing, ByteLevel, Sequence");
    if (has_template) step.refuse(ErrorKind::kUnsupported, "a second TemplateProcessing is not supported");
    has_template = true;
    file.post_template = read_template(step);
  });
}

std::vector<AddedToken> read_added_tokens(const Node& list) {
  std::vector<AddedToken> tokens;
  const std::size_t size = list.array_size();
  for (std::size_t i = 0; i < size; ++i) {
    const Node node = list.element(i);
    AddedToken token;
    token.id = node.get("id").token_id();
    token.content = node.get("content").string();
    token.single_word = node.get("single_word").boolean();
    token.lstrip = node.get("lstrip").boolean();
    token.rstrip = node.get("rstrip").boolean();
    token.normalized = node.get("normalized").boolean();
    token.special = node.get("special").boolean();
    tokens.push_back(std::move(token));
  }
  return tokens;
}

std::vector<std::pair<std::string, TokenId>> read_vocabulary(const Node& node) {
  if (!node.json().is_object()) node.expect("an object from tokens to ids");
  std::vector<std::pair<std::string, TokenId>> vocabulary;
  vocabulary.reserve(node.json().size());
  for (const auto& [token, id] : node.json().items()) {
    vocabulary.emplace_back(token, node.entry(token, id).token_id());
  }
  return vocabulary;
}

std::vector<std::pair<std::string, std::string>> read_merges(const Node& list) {
  std::vector<std::pair<std::string, std::string>> merges;
  const std::size_t size = list.array_size();
  merges.reserve(size);
  const bool are_strings = size > 0 && list.json()[0].is_string();
  for (std::size_t i = 0; i < size; ++i) {
    const Json& merge = list.json()[i];
    if (are_strings && merge.is_string()) {
      const auto& text = merge.get_ref<const std::string&>();
      if (text.starts_with("#version")) continue;
      const std::size_t space = text.find(' ');
      if (space == std::string::npos || text.find(' ', space + 1) != std::string::npos) {
        list.element(i).expect("two tokens with one space between");
      }
      merges.emplace_back(text.substr(0, space), text.substr(space + 1));
    } else if (!are_strings && merge.is_array() && merge.size() == 2 && merge[0].is_string() &&
               merge[1].is_string()) {
      merges.emplace_back(merge[0].get_ref<const std::string&>(), merge[1].get_ref<const std::string&>());
    } else {
      list.element(i).expect(are_strings ? "a string as in the first merge" : "an array of two strings");
    }
  }
  return merges;
}

/// An option that only other models use may be there as long as it is empty.
void refuse_if_set(const Node& model, const std::string& key) {
  const auto member = model.find(key);
  if (!member) return;
  const Json& value = member->json();
  const bool is_off = (value.is_string() && value.get_ref<const std::string&>().empty()) ||
                      (value.is_number() && value.get<double>() == 0);
  if (!is_off) member->refuse(ErrorKind::kUnsupported, "is not supported; set it to null");
}

BpeDescription read_model(const Node& node) {
  const auto type = node.find("type");  // absent in the oldest files
  if (type && type->string() != "BPE") {
    type->refuse(ErrorKind::kUnsupported,
                 quote_for_message(type->string()) + " is not supported; supported is BPE");
  }
  refuse_if_set(node, "dropout");
  refuse_if_set(node, "continuing_subword_prefix");
  refuse_if_set(node, "end_of_word_suffix");
  BpeDescription model;
  if (const auto unknown = node.find("unk_token")) model.unknown_token = unknown->string();
  model.fuse_unknown = node.boolean_or("fuse_unk", false);
  model.byte_fallback = node.boolean_or("byte_fallback", false);
  model.ignore_merges = node.boolean_or("ignore_merges", false);
  model.vocabulary = read_vocabulary(node.get("vocab"));
  model.merges = read_merges(node.get("merges"));
  return model;
}

}  // namespace

TokenizerFile read_tokenizer_file(std::string_view json, const std::string& origin) {
  const Json document = parse_strict_json(json, origin);
  const Node root(document, "", origin);
  TokenizerFile file;
  if (const auto version = root.find("version"); version && version->string() != "1.0") {
    version->refuse(ErrorKind::kUnsupported,
                    quote_for_message(version->string()) + " is not supported; supported is 1.0");
  }
  for (const std::string key : {"truncation", "padding"}) {
    if (const auto member = root.find(key)) {
      member->refuse(ErrorKind::kUnsupported, "is not supported; set it to null");
    }
  }
  file.model = read_model(root.get("model"));
  if (const auto list = root.find("added_tokens")) file.added_tokens = read_added_tokens(*list);
  if (const auto node = root.find("normalizer")) {
    for_each_step(*node, "normalizers", [&](const Node& step, const std::string& type) {
      file.normalizers.push_back(read_normalizer(step, type));
    });
  }
  if (const auto node = root.find("pre_tokenizer")) {
    for_each_step(*node, "pretokenizers", [&](const Node& step, const std::string& type) {
      file.pre_tokenizers.push_back(read_pre_tokenizer(step, type));
    });
  }
  file.post_template = {std::nullopt};
  if (const auto node = root.find("post_processor")) read_post_processor(*node, file);
  if (const auto node = root.find("decoder")) {
    for_each_step(*node, "decoders", [&](const Node& step, const std::string& type) {
      file.decoders.push_back(read_decoder(step, type));
    });
  } else {
    file.decoders = {SpacedDecoder{}};
  }
  return file;
}

}  // namespace aurora
