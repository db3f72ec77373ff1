#include "core/path/guest_path.h"

#include "absl/strings/str_cat.h"

namespace vmbfs {
namespace {

constexpr char16_t kSeparator = u'/';

bool IsSeparator(char16_t unit) { return unit == u'\\' || unit == u'/'; }
bool IsHighSurrogate(char16_t unit) { return unit >= 0xD800 && unit <= 0xDBFF; }
bool IsLowSurrogate(char16_t unit) { return unit >= 0xDC00 && unit <= 0xDFFF; }

char16_t UnitAt(std::span<const std::byte> utf16le, size_t index) {
  return static_cast<char16_t>(std::to_integer<unsigned>(utf16le[2 * index]) |
                               std::to_integer<unsigned>(utf16le[2 * index + 1]) << 8);
}

// Checks what does not depend on the tree: NUL, surrogates, lengths.
absl::Status CheckUnits(std::span<const std::byte> utf16le, size_t unit_count) {
  size_t piece_units = 0;
  for (size_t i = 0; i < unit_count; ++i) {
    const char16_t unit = UnitAt(utf16le, i);
    if (unit == 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("the path has a NUL at unit ", i, " of ", unit_count));
    }
    const bool after_high = i > 0 && IsHighSurrogate(UnitAt(utf16le, i - 1));
    const bool high_at_end = IsHighSurrogate(unit) && i + 1 == unit_count;
    if (IsLowSurrogate(unit) != after_high || high_at_end) {
      return absl::InvalidArgumentError(
          absl::StrCat("the path has an unpaired surrogate near unit ", i));
    }
    piece_units = IsSeparator(unit) ? 0 : piece_units + 1;
    if (piece_units > kPathPieceUnitsMax) {
      return absl::InvalidArgumentError(absl::StrCat("a piece of the path is longer than ",
                                                     kPathPieceUnitsMax, " units, at unit ", i));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<GuestPath> GuestPath::Parse(std::span<const std::byte> utf16le) {
  if (utf16le.size() % 2 != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("the path has an odd length: ", utf16le.size(), " bytes"));
  }
  size_t unit_count = utf16le.size() / 2;
  if (unit_count > kPathUnitsMax) {
    return absl::InvalidArgumentError(absl::StrCat("the path has ", unit_count, " units; at most ",
                                                   kPathUnitsMax, " are allowed"));
  }
  if (unit_count > 0 && UnitAt(utf16le, unit_count - 1) == 0) --unit_count;
  if (absl::Status status = CheckUnits(utf16le, unit_count); !status.ok()) return status;

  GuestPath path;
  size_t begin = 0;
  while (begin < unit_count) {
    size_t end = begin;
    while (end < unit_count && !IsSeparator(UnitAt(utf16le, end))) ++end;
    path.AppendPiece(utf16le.subspan(2 * begin, 2 * (end - begin)));
    begin = end + 1;
  }
  return path;
}

void GuestPath::AppendPiece(std::span<const std::byte> utf16le) {
  const size_t unit_count = utf16le.size() / 2;
  const bool first_is_dot = unit_count > 0 && UnitAt(utf16le, 0) == u'.';
  if (above_root_ || unit_count == 0 || (unit_count == 1 && first_is_dot)) return;
  if (unit_count == 2 && first_is_dot && UnitAt(utf16le, 1) == u'.') {
    above_root_ = units_.empty();
    const size_t separator = text().rfind(kSeparator);
    units_.resize(separator == std::u16string_view::npos ? 0 : separator);
    return;
  }
  if (!units_.empty()) units_.push_back(kSeparator);
  for (size_t i = 0; i < unit_count; ++i) units_.push_back(UnitAt(utf16le, i));
}

}  // namespace vmbfs
