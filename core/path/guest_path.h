// What a guest may ask for: a path in a tree of files.
//
// Trust: the bytes are the guest's; a GuestPath that exists is well formed.
// Rules: shared/specs/vmbfs.md, "What a broken request gets" and "How real
// clients behave".

#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "absl/container/inlined_vector.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace vmbfs {

inline constexpr size_t kPathUnitsMax = 4096;
inline constexpr size_t kPathPieceUnitsMax = 255;

// A path resolved by text: pieces without separators, `.`, `..` and empty ones.
//
// Thread safety: a value. Bounds: kPathUnitsMax; paths up to kInlineUnits do
// not allocate.
class GuestPath {
 public:
  static constexpr size_t kInlineUnits = 260;

  // `utf16le` is a path as it stands in a vmbfs message.
  //
  // Errors: kInvalidArgument: odd length, a NUL other than one at the end,
  // invalid UTF-16, too long, a piece too long. (Answered with status 3.)
  static absl::StatusOr<GuestPath> Parse(std::span<const std::byte> utf16le);

  // For tests and tools. Same rules.
  static absl::StatusOr<GuestPath> FromUtf8(std::string_view path);

  // `..` led above the root: nothing is there (answered with status 1).
  bool above_root() const { return above_root_; }
  bool is_root() const { return !above_root_ && units_.empty(); }

  // The pieces joined by `/`, in the guest's own case; empty for the root.
  std::u16string_view text() const { return {units_.data(), units_.size()}; }

 private:
  GuestPath() = default;
  // Adds one piece of a checked path, and resolves it.
  void AppendPiece(std::span<const std::byte> utf16le);

  absl::InlinedVector<char16_t, kInlineUnits> units_;
  bool above_root_ = false;
};

// Checks one file's name as a tree may hold it: 1 to 255 units, valid, no
// separator, no control character, none of `.` and `..`.
// Errors: kInvalidArgument with what to change.
absl::StatusOr<std::u16string> FileNameFromUtf8(std::string_view name);
std::string Utf8FromUtf16(std::u16string_view text);  // invalid units become U+FFFD

}  // namespace vmbfs
