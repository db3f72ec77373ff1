#include "core/hive/json_document.h"

#include <iterator>
#include <nlohmann/json.hpp>
#include <optional>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "core/hive/text_decoding.h"
#include "core/hive/utf16.h"
#include "core/path/guest_path.h"

namespace vmbfs::hive {
namespace {

using Json = nlohmann::json;

// Lines and columns, from 1, of places further and further on in a text; a
// column is a character.
class LineCounter {
 public:
  explicit LineCounter(std::string_view text) : text_(text) {}

  // REQUIRES: not before the last place.
  void Advance(size_t position) {
    for (const char byte : text_.substr(position_, position - position_)) {
      if (byte == '\n') {
        ++line_;
        column_ = 1;
      } else if ((static_cast<unsigned char>(byte) & 0xC0) != 0x80) {
        ++column_;
      }
    }
    position_ = position;
  }
  uint32_t line() const { return line_; }
  uint32_t column() const { return column_; }

 private:
  const std::string_view text_;
  size_t position_ = 0;
  uint32_t line_ = 1;
  uint32_t column_ = 1;
};

std::string AtPlace(const std::string& name, uint32_t line, uint32_t column,
                    absl::string_view reason) {
  return absl::StrCat(name, ":", line, ":", column, ": ", reason);
}

// Text that counts what the parser has taken from it.
class CountedText {
 public:
  using iterator_category = std::input_iterator_tag;
  using value_type = char;
  using difference_type = ptrdiff_t;
  using pointer = const char*;
  using reference = const char&;

  CountedText(const char* at, size_t& taken) : at_(at), taken_(&taken) {}

  reference operator*() const { return *at_; }
  CountedText& operator++() {
    ++at_;
    ++*taken_;
    return *this;
  }
  bool operator==(const CountedText& other) const { return at_ == other.at_; }
  bool operator!=(const CountedText& other) const { return at_ != other.at_; }

 private:
  const char* at_;
  size_t* taken_;
};

// Builds the nodes as the parser meets them.
class Builder : public nlohmann::json_sax<Json> {
 public:
  Builder(std::string_view text, JsonNode& root) : text_(text), root_(root), lines_(text) {}

  size_t& taken() { return taken_; }
  const std::string& refusal() const { return refusal_; }
  size_t refusal_position() const { return refusal_position_; }

  bool null() override { return Add({.kind = JsonNode::Kind::kNull}); }
  bool boolean(bool value) override {
    return Add({.kind = JsonNode::Kind::kBool, .number = value ? 1u : 0u});
  }
  bool number_integer(number_integer_t) override {
    return Refuse(TokenStart(), "a number is negative");
  }
  bool number_unsigned(number_unsigned_t value) override {
    return Add({.kind = JsonNode::Kind::kNumber, .number = value});
  }
  bool number_float(number_float_t, const string_t&) override {
    return Refuse(TokenStart(), "a number is not whole, or does not fit 64 bits");
  }
  bool string(string_t& value) override {
    return Add({.kind = JsonNode::Kind::kString, .text = std::move(value)});
  }
  bool binary(binary_t&) override { return Refuse(TokenStart(), "JSON has no binary values"); }
  bool start_object(size_t) override { return Open({.kind = JsonNode::Kind::kObject}); }
  bool start_array(size_t) override { return Open({.kind = JsonNode::Kind::kArray}); }
  bool end_object() override { return Close(); }
  bool end_array() override { return Close(); }
  bool key(string_t& value) override {
    const size_t start = TokenStart();
    EndToken();
    if (!open_.back().names.insert(value).second) {
      return Refuse(start, "this member was there before in its object");
    }
    name_ = std::move(value);
    return true;
  }
  bool parse_error(size_t position, const std::string&,
                   const nlohmann::detail::exception& error) override;

 private:
  struct Container {
    JsonNode* node;  // stays where it is while it is open: its parent gets no other element
    absl::flat_hash_set<std::string> names;
  };

  // Where the token that the parser has just read begins: between two tokens
  // are blanks, commas and colons only.
  size_t TokenStart() const {
    return std::min(text_.find_first_not_of(" \t\r\n,:", token_end_), text_.size());
  }
  // The parser has taken the token, and behind a number one character more.
  void EndToken() {
    const size_t start = TokenStart();
    const size_t number_end = text_.find_first_not_of("0123456789", start);
    token_end_ = number_end != start ? std::min(number_end, text_.size()) : taken_;
  }
  bool Refuse(size_t position, std::string_view why) {
    refusal_position_ = position;
    refusal_ = why;
    return false;
  }
  bool Add(JsonNode node);
  bool Open(JsonNode node);
  bool Close() {
    open_.pop_back();
    EndToken();
    return true;
  }

  const std::string_view text_;
  JsonNode& root_;
  LineCounter lines_;
  size_t taken_ = 0;
  size_t token_end_ = 0;
  size_t nodes_ = 0;
  std::string name_;
  std::vector<Container> open_;
  std::string refusal_;
  size_t refusal_position_ = 0;
};

bool Builder::Add(JsonNode node) {
  const size_t start = TokenStart();
  EndToken();
  if (++nodes_ > kJsonNodesMax) {
    return Refuse(start, absl::StrCat("more than ", kJsonNodesMax, " values"));
  }
  lines_.Advance(start);
  node.line = lines_.line();
  node.column = lines_.column();
  node.name = std::move(name_);
  name_.clear();
  if (open_.empty()) {
    root_ = std::move(node);
  } else {
    open_.back().node->elements.push_back(std::move(node));
  }
  return true;
}

bool Builder::Open(JsonNode node) {
  const size_t start = TokenStart();
  if (open_.size() == kJsonDepthMax) {
    return Refuse(start, absl::StrCat("more than ", kJsonDepthMax, " levels"));
  }
  if (!Add(std::move(node))) return false;
  open_.push_back(
      {.node = open_.empty() ? &root_ : &open_.back().node->elements.back(), .names = {}});
  return true;
}

// The library says "[id] parse error at line 1, column 2: syntax error …; last
// read: '…'": what is between.
bool Builder::parse_error(size_t position, const std::string&,
                          const nlohmann::detail::exception& error) {
  std::string_view why = error.what();
  const size_t start = why.find("syntax error");
  // What is no matter of syntax is a number, and the library would repeat it whole.
  if (start == why.npos) return Refuse(position, "a number does not fit");
  why.remove_prefix(start);
  return Refuse(position > 0 ? position - 1 : 0, why.substr(0, why.find("; last read")));
}

}  // namespace

const JsonNode* JsonNode::Member(std::string_view wanted) const {
  for (const JsonNode& element : elements) {
    if (element.name == wanted) return &element;
  }
  return nullptr;
}

absl::StatusOr<JsonDocument> JsonDocument::Parse(const std::string& name,
                                                 std::span<const std::byte> bytes) {
  JsonDocument document;
  document.name_ = name;
  std::string text;
  const auto refuse = [&name, &text](size_t position, const std::string& why) {
    LineCounter lines(text);
    lines.Advance(position);
    return absl::InvalidArgumentError(AtPlace(name, lines.line(), lines.column(), why));
  };
  const absl::StatusOr<std::u16string> units = DecodeText(bytes);
  if (!units.ok()) return refuse(0, std::string(units.status().message()));
  if (!IsUnicode(*units)) return refuse(0, "the file has half of a surrogate pair");
  text = Utf8FromUtf16(*units);
  if (text.size() > UINT32_MAX) return refuse(0, "the file is larger than 4 GiB");
  // The library takes a NUL for the end.
  if (const size_t nul = text.find('\0'); nul != text.npos) return refuse(nul, "a NUL");
  Builder builder(text, document.root_);
  const CountedText begin(text.data(), builder.taken());
  const CountedText end(text.data() + text.size(), builder.taken());
  if (!Json::sax_parse(begin, end, &builder)) {
    return refuse(builder.refusal_position(), builder.refusal());
  }
  return document;
}

absl::Status JsonDocument::Error(const JsonNode& node, absl::string_view reason) const {
  return Located(node, absl::InvalidArgumentError(reason));
}

absl::Status JsonDocument::Located(const JsonNode& node, const absl::Status& status) const {
  if (status.ok()) return status;
  return absl::Status(status.code(), AtPlace(name_, node.line, node.column, status.message()));
}

}  // namespace vmbfs::hive
