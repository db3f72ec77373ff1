// Names outside a vmbfs message: conversion from and to UTF-8.

#include <unicode/ustring.h>

#include <vector>

#include "absl/strings/str_cat.h"
#include "core/path/guest_path.h"

namespace vmbfs {
namespace {

// Errors: kInvalidArgument: longer than `units_max`, or not UTF-8.
absl::StatusOr<std::u16string> Utf16FromUtf8(std::string_view text, size_t units_max) {
  constexpr size_t kUtf8BytesPerUnitMax = 3;
  if (text.size() > units_max * kUtf8BytesPerUnitMax) {
    return absl::InvalidArgumentError(
        absl::StrCat(text.size(), " bytes of text; at most ", units_max, " units are allowed"));
  }
  std::u16string units(text.size(), u'\0');
  int32_t unit_count = 0;
  UErrorCode error = U_ZERO_ERROR;
  u_strFromUTF8(units.data(), static_cast<int32_t>(units.size()), &unit_count, text.data(),
                static_cast<int32_t>(text.size()), &error);
  if (U_FAILURE(error)) return absl::InvalidArgumentError("the text is not valid UTF-8");
  units.resize(static_cast<size_t>(unit_count));
  if (units.size() > units_max) {
    return absl::InvalidArgumentError(
        absl::StrCat(units.size(), " units of text; at most ", units_max, " are allowed"));
  }
  return units;
}

bool IsControl(char16_t unit) { return unit < 0x20 || (unit >= 0x7F && unit < 0xA0); }

}  // namespace

absl::StatusOr<GuestPath> GuestPath::FromUtf8(std::string_view path) {
  absl::StatusOr<std::u16string> units = Utf16FromUtf8(path, kPathUnitsMax);
  if (!units.ok()) return units.status();
  std::vector<std::byte> utf16le;
  utf16le.reserve(2 * units->size());
  for (const char16_t unit : *units) {
    utf16le.push_back(static_cast<std::byte>(unit & 0xFF));
    utf16le.push_back(static_cast<std::byte>(unit >> 8));
  }
  return Parse(utf16le);
}

absl::StatusOr<std::u16string> FileNameFromUtf8(std::string_view name) {
  absl::StatusOr<std::u16string> units = Utf16FromUtf8(name, kPathPieceUnitsMax);
  if (!units.ok()) {
    return absl::InvalidArgumentError(absl::StrCat("file name: ", units.status().message()));
  }
  if (units->empty()) {
    return absl::InvalidArgumentError("file name: it is empty; at least one character is needed");
  }
  if (*units == u"." || *units == u"..") {
    return absl::InvalidArgumentError("file name: `.` and `..` stand for folders; use another");
  }
  for (const char16_t unit : *units) {
    if (unit == u'/' || unit == u'\\') {
      return absl::InvalidArgumentError("file name: it holds a separator; leave out `/` and `\\`");
    }
    if (IsControl(unit)) {
      return absl::InvalidArgumentError(
          absl::StrCat("file name: it holds control character ", int{unit}, "; leave it out"));
    }
  }
  return units;
}

std::string Utf8FromUtf16(std::u16string_view text) {
  constexpr UChar32 kReplacement = 0xFFFD;
  constexpr size_t kUtf8BytesPerUnitMax = 3;
  std::string utf8(text.size() * kUtf8BytesPerUnitMax, '\0');
  int32_t byte_count = 0;
  UErrorCode error = U_ZERO_ERROR;
  u_strToUTF8WithSub(utf8.data(), static_cast<int32_t>(utf8.size()), &byte_count, text.data(),
                     static_cast<int32_t>(text.size()), kReplacement, nullptr, &error);
  utf8.resize(U_FAILURE(error) ? 0 : static_cast<size_t>(byte_count));
  return utf8;
}

}  // namespace vmbfs
