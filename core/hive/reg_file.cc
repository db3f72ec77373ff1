#include "core/hive/reg_file.h"

#include <cstdint>
#include <map>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "core/hive/text_decoding.h"
#include "core/hive/value_data.h"

namespace vmbfs::hive {
namespace {

constexpr std::u16string_view kHeader = u"Windows Registry Editor Version 5.00";

bool IsBlank(char16_t unit) { return unit == u' ' || unit == u'\t'; }

std::optional<uint32_t> HexDigit(char16_t unit) {
  if (unit >= u'0' && unit <= u'9') return unit - u'0';
  if (unit >= u'a' && unit <= u'f') return unit - u'a' + 10;
  if (unit >= u'A' && unit <= u'F') return unit - u'A' + 10;
  return std::nullopt;
}

// A place in the text, by line and column from 1.
class Cursor {
 public:
  Cursor(const std::string& name, std::u16string_view text) : name_(name), text_(text) {}

  bool at_end_of_text() const { return position_ == text_.size(); }
  bool at_end_of_line() const { return at_end_of_text() || IsLineEnd(text_[position_]); }
  char16_t unit() const { return at_end_of_line() ? u'\0' : text_[position_]; }
  std::u16string_view rest_of_line() const {
    size_t end = position_;
    while (end < text_.size() && !IsLineEnd(text_[end])) ++end;
    return text_.substr(position_, end - position_);
  }

  // REQUIRES: within the line.
  void Skip(size_t units = 1) { position_ += units; }
  void SkipBlanks() {
    while (!at_end_of_line() && IsBlank(unit())) Skip();
  }
  bool SkipIf(char16_t expected) {
    if (at_end_of_line() || unit() != expected) return false;
    Skip();
    return true;
  }
  bool SkipIfWord(std::u16string_view word) {
    if (rest_of_line().substr(0, word.size()) != word) return false;
    Skip(word.size());
    return true;
  }
  // What may follow a value: blanks and a comment.
  bool OnlyACommentIsLeft() {
    SkipBlanks();
    return at_end_of_line() || unit() == u';';
  }
  void NextLine() {
    position_ += rest_of_line().size();
    if (position_ < text_.size()) {
      const bool carriage_return = text_[position_++] == u'\r';
      if (carriage_return && position_ < text_.size() && text_[position_] == u'\n') ++position_;
    }
    ++line_;
    line_start_ = position_;
  }

  size_t line() const { return line_; }
  InputPlace place() const {
    return {.input = name_,
            .line = static_cast<uint32_t>(line_),
            .column = static_cast<uint32_t>(position_ - line_start_ + 1)};
  }

  absl::Status Error(absl::string_view reason) const {
    return absl::InvalidArgumentError(Located(reason));
  }
  // An error of somebody else, at this place.
  absl::Status Error(const absl::Status& status) const {
    return absl::Status(status.code(), Located(status.message()));
  }

 private:
  static bool IsLineEnd(char16_t unit) { return unit == u'\n' || unit == u'\r'; }
  std::string Located(absl::string_view reason) const {
    return absl::StrCat(name_, ":", line_, ":", position_ - line_start_ + 1, ": ", reason);
  }

  const std::string& name_;
  std::u16string_view text_;
  size_t position_ = 0;
  size_t line_start_ = 0;
  size_t line_ = 1;
};

class Parser {
 public:
  Parser(const std::string& name, std::u16string_view text, ImcSettings& settings)
      : cursor_(name, text), settings_(settings) {}

  absl::Status Parse();

 private:
  absl::Status ParseKey();
  absl::Status ParseValue();
  absl::StatusOr<std::u16string> ParseQuoted();
  absl::Status ParseData(RegistryValue& value);
  absl::Status ParseDword(RegistryValue& value);
  absl::Status ParseHexType(RegistryValue& value);
  absl::Status ParseHexBytes(RegistryValue& value);

  Cursor cursor_;
  ImcSettings& settings_;
  std::optional<ImcSettings::KeyId> key_;
  std::map<ImcSettings::KeyId, size_t> lines_;  // of keys that have stood in brackets
};

absl::Status Parser::Parse() {
  if (!cursor_.SkipIfWord(kHeader) || !cursor_.OnlyACommentIsLeft()) {
    return cursor_.Error(
        "the first line is not `Windows Registry Editor Version 5.00` (REGEDIT4 files, whose text "
        "depends on a machine's code page, are not taken: export them as version 5), nor is this "
        "JSON, which begins with `{`, or "
        "registry.pol");
  }
  for (cursor_.NextLine(); !cursor_.at_end_of_text(); cursor_.NextLine()) {
    cursor_.SkipBlanks();
    if (cursor_.at_end_of_line() || cursor_.unit() == u';') continue;
    const absl::Status status = cursor_.unit() == u'[' ? ParseKey() : ParseValue();
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status Parser::ParseKey() {
  const Cursor start = cursor_;
  cursor_.Skip();
  const std::u16string_view line = cursor_.rest_of_line();
  const size_t end = line.rfind(u']');
  if (end == line.npos) return start.Error("the key's `]` is missing");
  const std::u16string_view path = line.substr(0, end);
  if (!path.empty() && path.front() == u'-') {
    return start.Error("deleting a key is not possible: an IMC hive only adds and changes");
  }
  cursor_.Skip(end + 1);
  if (!cursor_.OnlyACommentIsLeft()) return cursor_.Error("text behind the key");
  const auto key = settings_.AddKey(path);
  if (!key.ok()) return start.Error(key.status());
  if (const auto [before, is_new] = lines_.emplace(*key, start.line()); !is_new) {
    return start.Error(absl::StrCat("this key was there before, in line ", before->second));
  }
  key_ = *key;
  return absl::OkStatus();
}

absl::Status Parser::ParseValue() {
  const Cursor start = cursor_;
  RegistryValue value;
  if (!cursor_.SkipIf(u'@')) {
    if (cursor_.unit() != u'"') {
      return cursor_.Error("a key in brackets, a value in quotes, `@` or a comment is expected");
    }
    auto name = ParseQuoted();
    if (!name.ok()) return name.status();
    if (name->empty()) return start.Error("a value's name is empty; the default value is `@`");
    value.name = *std::move(name);
  }
  cursor_.SkipBlanks();
  if (!cursor_.SkipIf(u'=')) return cursor_.Error("`=` is expected");
  cursor_.SkipBlanks();
  if (absl::Status status = ParseData(value); !status.ok()) return status;
  if (!cursor_.OnlyACommentIsLeft()) return cursor_.Error("text behind the value");
  if (!key_.has_value()) return start.Error("a value before the first key");
  const absl::Status added = settings_.AddValue(*key_, std::move(value), start.place());
  return added.ok() ? added : start.Error(added);
}

// From the opening to the closing quote, on one line.
absl::StatusOr<std::u16string> Parser::ParseQuoted() {
  const Cursor start = cursor_;
  cursor_.Skip();
  std::u16string text;
  while (!cursor_.SkipIf(u'"')) {
    if (cursor_.at_end_of_line()) return start.Error("the string does not end on its line");
    if (cursor_.unit() == u'\\') {
      cursor_.Skip();
      if (cursor_.unit() != u'\\' && cursor_.unit() != u'"') {
        return cursor_.Error("a backslash stands before neither a backslash nor a quote");
      }
    }
    text.push_back(cursor_.unit());
    cursor_.Skip();
  }
  return text;
}

absl::Status Parser::ParseData(RegistryValue& value) {
  if (cursor_.unit() == u'-') {
    return cursor_.Error("deleting a value is not possible: an IMC hive only adds and changes");
  }
  if (cursor_.unit() == u'"') {
    const auto text = ParseQuoted();
    if (!text.ok()) return text.status();
    value.type = ValueType::kString;
    value.data = StringData(*text);
    return absl::OkStatus();
  }
  if (cursor_.SkipIfWord(u"dword:")) return ParseDword(value);
  if (cursor_.SkipIfWord(u"hex")) {
    if (absl::Status status = ParseHexType(value); !status.ok()) return status;
    return ParseHexBytes(value);
  }
  return cursor_.Error("data is a string in quotes, `dword:`, `hex:` or `hex(TYPE):`");
}

absl::Status Parser::ParseDword(RegistryValue& value) {
  constexpr int kDigitsMax = 8;
  uint32_t number = 0;
  int digits = 0;
  for (; HexDigit(cursor_.unit()).has_value(); cursor_.Skip()) {
    if (++digits > kDigitsMax) return cursor_.Error("a DWORD has at most 8 digits");
    number = number << 4 | *HexDigit(cursor_.unit());
  }
  if (digits == 0) return cursor_.Error("hexadecimal digits are expected");
  value.type = ValueType::kDword;
  value.data = DwordData(number);
  return absl::OkStatus();
}

absl::Status Parser::ParseHexType(RegistryValue& value) {
  constexpr int kDigitsMax = 8;
  value.type = ValueType::kBinary;
  if (cursor_.SkipIf(u'(')) {
    uint32_t type = 0;
    int digits = 0;
    for (; HexDigit(cursor_.unit()).has_value(); cursor_.Skip()) {
      if (++digits > kDigitsMax) return cursor_.Error("a type has at most 8 digits");
      type = type << 4 | *HexDigit(cursor_.unit());
    }
    if (digits == 0 || !cursor_.SkipIf(u')')) return cursor_.Error("`hex(TYPE):` is expected");
    value.type = static_cast<ValueType>(type);
  }
  return cursor_.SkipIf(u':') ? absl::OkStatus() : cursor_.Error("`:` is expected");
}

// Bytes of one or two digits, with commas between; a backslash ends a line that
// goes on.
absl::Status Parser::ParseHexBytes(RegistryValue& value) {
  bool byte_expected = false;  // behind a comma
  for (;;) {
    cursor_.SkipBlanks();
    if (cursor_.SkipIf(u'\\')) {
      if (!cursor_.OnlyACommentIsLeft()) return cursor_.Error("text behind the line's backslash");
      cursor_.NextLine();
      if (cursor_.at_end_of_text()) return cursor_.Error("the data goes on, and the file ends");
      continue;
    }
    const std::optional<uint32_t> high = HexDigit(cursor_.unit());
    if (!high.has_value()) {
      if (byte_expected) return cursor_.Error("a byte is expected behind the comma");
      return absl::OkStatus();
    }
    cursor_.Skip();
    uint32_t byte = *high;
    if (const std::optional<uint32_t> low = HexDigit(cursor_.unit()); low.has_value()) {
      byte = byte << 4 | *low;
      cursor_.Skip();
    }
    value.data.push_back(static_cast<std::byte>(byte));
    cursor_.SkipBlanks();
    byte_expected = cursor_.SkipIf(u',');
    if (!byte_expected) return absl::OkStatus();
  }
}

}  // namespace

absl::Status AddRegFile(const std::string& name, std::span<const std::byte> bytes,
                        ImcSettings& settings) {
  const absl::StatusOr<std::u16string> text = DecodeText(bytes);
  if (!text.ok()) {
    return absl::Status(text.status().code(),
                        absl::StrCat(name, ":1:1: ", text.status().message()));
  }
  return Parser(name, *text, settings).Parse();
}

}  // namespace vmbfs::hive
