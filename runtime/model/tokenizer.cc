#include "runtime/model/tokenizer.h"

#include <algorithm>
#include <unordered_map>
#include <unordered_set>
#include <utility>

#include "kernels/error.h"
#include "runtime/model/strict_json.h"
#include "runtime/model/tokenizer_file.h"
#include "runtime/model/unicode_text.h"

namespace aurora {
namespace {

/// The largest published tokenizer.json files have 35 MB.
constexpr std::size_t kLargestFileBytes = std::size_t{512} << 20;

/// The words of one text that were encoded before, and where their tokens lie: texts repeat their words.
class WordMemory {
 public:
  WordMemory(const BpeModel& model, std::vector<TokenId>& ids) : model_(model), ids_(ids) {}

  void encode(std::string_view word) {
    if (word.size() <= kLongestWord) {
      encode_remembered(word);
      return;
    }
    while (!word.empty()) {
      const std::string_view front = word.substr(0, model_.independent_front(word));
      if (front.size() <= kLongestWord) {
        encode_remembered(front);
      } else {
        model_.encode_word(front, ids_);
      }
      word.remove_prefix(front.size());
    }
  }

 private:
  struct Range {
    std::size_t begin;
    std::size_t end;
  };
  static constexpr std::size_t kLongestWord = 64;  // longer ones hardly repeat

  void encode_remembered(std::string_view word) {
    const auto [entry, is_new] = range_of_word_.try_emplace(word, Range{ids_.size(), ids_.size()});
    if (is_new) {
      model_.encode_word(word, ids_);
      entry->second.end = ids_.size();
    } else {
      for (std::size_t i = entry->second.begin; i < entry->second.end; ++i) ids_.push_back(TokenId{ids_[i]});
    }
  }

  const BpeModel& model_;
  std::vector<TokenId>& ids_;
  std::unordered_map<std::string_view, Range> range_of_word_;
};

}  // namespace

struct Tokenizer::Contents {
  Contents(TokenizerFile file, const std::string& origin);

  /// The token as the decoders see it; null if there is none or it is to be skipped.
  const std::string* decoded_token(TokenId id, bool skip_special_tokens) const;
  void add_token(const AddedToken& token, const std::string& origin);
  void index_added_tokens(const std::string& origin);
  std::string normalized(std::string_view text) const;

  std::vector<Normalizer> normalizers;
  std::vector<PreTokenizer> pre_tokenizers;
  std::vector<std::optional<TokenId>> post_template;
  std::vector<Decoder> decoders;
  BpeModel model;

  struct DecodedToken {
    std::string text;
    bool is_special = false;
  };
  std::unordered_map<std::string, TokenId> id_of_added_token;
  std::unordered_map<TokenId, AddedToken> added_token_of_id;
  std::unordered_map<TokenId, DecodedToken> decoded_added_token;
  std::unordered_set<std::string> special_tokens;
  AddedTokenMatcher matcher;             // in the caller's text
  AddedTokenMatcher normalized_matcher;  // in normalized text
  TokenId next_added_id;                 // of an added token that the model does not have
  TokenId highest_id;
};

Tokenizer::Contents::Contents(TokenizerFile file, const std::string& origin)
    : normalizers(std::move(file.normalizers)),
      pre_tokenizers(std::move(file.pre_tokenizers)),
      post_template(std::move(file.post_template)),
      decoders(std::move(file.decoders)),
      model([&] {
        try {
          return BpeModel(std::move(file.model));
        } catch (const Error& error) {
          throw Error(error.kind(), origin + ": model: " + error.what());
        }
      }()),
      next_added_id(static_cast<TokenId>(model.num_tokens())),
      highest_id(model.highest_id()) {
  for (const AddedToken& token : file.added_tokens) add_token(token, origin);
  index_added_tokens(origin);
}

void Tokenizer::Contents::add_token(const AddedToken& token, const std::string& origin) {
  if (token.content.empty()) return;
  // Hugging Face gives a token the id of its content, or else the next free one, and ignores the id in the
  // file. Where the two differ, the file does not say what it means.
  TokenId id = next_added_id;
  if (const auto known = id_of_added_token.find(token.content); known != id_of_added_token.end()) {
    id = known->second;
  } else if (const auto model_id = model.token_to_id(token.content)) {
    id = *model_id;
  } else {
    ++next_added_id;
  }
  if (id != token.id) {
    throw Error(ErrorKind::kFormat, origin + ": added_tokens: " + quote_for_message(token.content) +
                                        " has id " + std::to_string(token.id) +
                                        ", but its place in the vocabulary is " + std::to_string(id));
  }
  id_of_added_token[token.content] = id;
  added_token_of_id[id] = token;
  if (token.special) special_tokens.insert(token.content);
  highest_id = std::max(highest_id, id);
}

std::string Tokenizer::Contents::normalized(std::string_view text) const {
  Piece piece;
  piece.end = text.size();
  PieceList list{std::string(text), {piece}};
  return normalize_pieces(std::move(list), normalizers).text;
}

void Tokenizer::Contents::index_added_tokens(const std::string& origin) {
  for (const auto& [id, token] : added_token_of_id) {
    const std::string pattern = token.normalized ? normalized(token.content) : token.content;
    if (pattern.empty() || !(token.normalized ? normalized_matcher : matcher).add(pattern, token)) {
      throw Error(ErrorKind::kFormat, origin + ": added_tokens: " + quote_for_message(token.content) +
                                          " (id " + std::to_string(id) + ") becomes " +
                                          quote_for_message(pattern) +
                                          " when normalized, which is empty or another token's");
    }
    decoded_added_token[id] = {pattern, special_tokens.contains(pattern)};
  }
}

const std::string* Tokenizer::Contents::decoded_token(TokenId id, bool skip_special_tokens) const {
  const auto added = decoded_added_token.find(id);
  if (added == decoded_added_token.end()) return model.id_to_token(id);
  return skip_special_tokens && added->second.is_special ? nullptr : &added->second.text;
}

Tokenizer::Tokenizer(std::shared_ptr<const Contents> contents) : contents_(std::move(contents)) {}
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&&) noexcept = default;
Tokenizer::~Tokenizer() = default;

Tokenizer Tokenizer::load(const std::filesystem::path& folder) {
  const std::filesystem::path file = folder / "tokenizer.json";
  return parse(read_text_file(file, kLargestFileBytes), file.string());
}

Tokenizer Tokenizer::parse(std::string_view json, const std::string& origin) {
  return Tokenizer(std::make_shared<const Contents>(read_tokenizer_file(json, origin), origin));
}

std::vector<TokenId> Tokenizer::encode(std::string_view text, bool add_special_tokens) const {
  if (const auto offset = first_invalid_utf8(text)) {
    throw Error(ErrorKind::kInvalidArgument, "the text is not valid UTF-8: byte " + std::to_string(*offset) +
                                                 " of " + std::to_string(text.size()) +
                                                 " is not part of a character");
  }
  PieceList list;
  if (!text.empty()) {
    list.text = text;
    list.pieces.push_back({0, text.size(), kNoToken, true, utf8_length(text[0])});
  }
  contents_->matcher.cut_out(list);
  list = normalize_pieces(std::move(list), contents_->normalizers);
  contents_->normalized_matcher.cut_out(list);
  list = pre_tokenize_pieces(std::move(list), contents_->pre_tokenizers);

  std::vector<TokenId> ids;
  WordMemory words(contents_->model, ids);
  for (const std::optional<TokenId>& special : contents_->post_template) {
    if (special) {
      if (add_special_tokens) ids.push_back(*special);
      continue;
    }
    for (const Piece& piece : list.pieces) {
      if (piece.token != kNoToken) {
        ids.push_back(piece.token);
      } else if (piece.begin != piece.end) {
        words.encode(list.view(piece));
      }
    }
  }
  return ids;
}

std::string Tokenizer::decode(std::span<const TokenId> ids, bool skip_special_tokens) const {
  DecoderStream stream(contents_->decoders);
  for (const TokenId id : ids) {
    if (const std::string* token = contents_->decoded_token(id, skip_special_tokens))
      stream.push(*token, true);
  }
  stream.finish();
  return stream.take_text();
}

std::optional<TokenId> Tokenizer::token_to_id(std::string_view token) const {
  const auto added = contents_->id_of_added_token.find(std::string(token));
  if (added != contents_->id_of_added_token.end()) return added->second;
  return contents_->model.token_to_id(token);
}

std::int64_t Tokenizer::vocabulary_size() const { return std::int64_t{contents_->highest_id} + 1; }

struct IncrementalDecoder::Stream {
  Stream(std::shared_ptr<const Tokenizer::Contents> tokenizer_contents, bool skip)
      : contents(std::move(tokenizer_contents)), decoders(contents->decoders), skip_special_tokens(skip) {}

  void push(TokenId id, bool generated) {
    if (const std::string* token = contents->decoded_token(id, skip_special_tokens))
      decoders.push(*token, generated);
  }

  std::shared_ptr<const Tokenizer::Contents> contents;
  DecoderStream decoders;
  bool skip_special_tokens;
  bool finished = false;
};

IncrementalDecoder::IncrementalDecoder(const Tokenizer& tokenizer, std::span<const TokenId> context,
                                       bool skip_special_tokens)
    : stream_(std::make_unique<Stream>(tokenizer.contents_, skip_special_tokens)) {
  for (const TokenId token : context) stream_->push(token, false);
}

IncrementalDecoder::IncrementalDecoder(IncrementalDecoder&&) noexcept = default;
IncrementalDecoder& IncrementalDecoder::operator=(IncrementalDecoder&&) noexcept = default;
IncrementalDecoder::~IncrementalDecoder() = default;

std::string IncrementalDecoder::push(TokenId token) {
  if (stream_->finished) {
    throw Error(ErrorKind::kInvalidArgument,
                "token " + std::to_string(token) + " pushed into an incremental decoder that is finished");
  }
  stream_->push(token, true);
  return stream_->decoders.take_text();
}

std::string IncrementalDecoder::finish() {
  if (!std::exchange(stream_->finished, true)) stream_->decoders.finish();
  return stream_->decoders.take_text();
}

}  // namespace aurora
