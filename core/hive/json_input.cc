#include "core/hive/json_input.h"

#include <algorithm>
#include <cstdlib>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "core/hive/data_text.h"
#include "core/hive/utf16.h"

namespace vmbfs::hive {
namespace {

std::vector<std::byte> BytesOf(const std::string& text) {
  const auto* const data = reinterpret_cast<const std::byte*>(text.data());
  return {data, data + text.size()};
}

}  // namespace

absl::Status CheckKind(const JsonDocument& document, const JsonNode& node, JsonNode::Kind kind,
                       const char* what) {
  if (node.kind == kind) return absl::OkStatus();
  return document.Error(node, absl::StrCat(what, " is expected"));
}

absl::Status CheckMembers(const JsonDocument& document, const JsonNode& node,
                          std::initializer_list<absl::string_view> names) {
  if (absl::Status status = CheckKind(document, node, JsonNode::Kind::kObject, "an object");
      !status.ok()) {
    return status;
  }
  for (const JsonNode& member : node.elements) {
    if (std::find(names.begin(), names.end(), absl::string_view(member.name)) == names.end()) {
      return document.Error(
          member, absl::StrCat("member `", GivenPathText(UnitsOf(member.name)),
                               "` is not known here; there are: ", absl::StrJoin(names, ", ")));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<uint64_t> NumberIn(const JsonDocument& document, const JsonNode& node,
                                  uint64_t max) {
  const absl::Status status = CheckKind(document, node, JsonNode::Kind::kNumber, "a number");
  if (!status.ok()) return status;
  if (node.number <= max) return node.number;
  return document.Error(node, absl::StrCat("a number of at most ", max, " is expected"));
}

absl::StatusOr<std::u16string> TextIn(const JsonDocument& document, const JsonNode& node) {
  const absl::Status status = CheckKind(document, node, JsonNode::Kind::kString, "a string");
  if (!status.ok()) return status;
  if (node.text.find('\0') == node.text.npos) return UnitsOf(node.text);
  return document.Error(node, "the string holds a NUL, where its readers would end");
}

absl::StatusOr<std::vector<std::byte>> HexIn(const JsonDocument& document, const JsonNode& node) {
  const absl::Status status = CheckKind(document, node, JsonNode::Kind::kString, "a string");
  if (!status.ok()) return status;
  if (node.text.size() % 2 != 0 || !std::all_of(node.text.begin(), node.text.end(), [](char each) {
        return absl::ascii_isxdigit(static_cast<unsigned char>(each));
      })) {
    return document.Error(node, "pairs of hexadecimal digits are expected");
  }
  return BytesOf(absl::HexStringToBytes(node.text));
}

absl::StatusOr<std::vector<std::byte>> Base64In(const JsonDocument& document,
                                                const JsonNode& node) {
  const absl::Status status = CheckKind(document, node, JsonNode::Kind::kString, "a string");
  if (!status.ok()) return status;
  std::string bytes;
  if (absl::Base64Unescape(node.text, &bytes)) return BytesOf(bytes);
  return document.Error(node, "base64 is expected");
}

std::u16string UnitsOf(std::string_view text) {
  std::optional<std::u16string> units = UnitsFromUtf8(text);
  if (!units.has_value()) std::abort();  // the document was decoded as a whole
  return *std::move(units);
}

}  // namespace vmbfs::hive
