// Little-endian fields at byte offsets, written and read by hand: the kit takes
// no layout from the code it judges.

#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace vmbfs::conformance {

using Bytes = std::vector<std::byte>;
using ByteView = std::span<const std::byte>;

// Writes the low `width` bytes of `value`. REQUIRES: they fit.
void Put(std::span<std::byte> bytes, size_t offset, size_t width, uint64_t value);
// Reads `width` bytes; what lies behind the end is 0.
uint64_t Get(ByteView bytes, size_t offset, size_t width);
uint32_t Get32(ByteView bytes, size_t offset);

void Append(Bytes& bytes, ByteView more);
// REQUIRES: hexadecimal digits in pairs; spaces and new lines are skipped.
Bytes FromHex(std::string_view hex);
// For messages to people; at most 64 bytes.
std::string ToHex(ByteView bytes);

bool AllZero(ByteView bytes);

}  // namespace vmbfs::conformance
