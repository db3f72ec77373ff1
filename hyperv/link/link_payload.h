// Copying payloads in and out of wire structures, for the codecs of the link.

#pragma once

#include <cstddef>
#include <cstring>
#include <span>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace vmbfs::hyperv {

template <typename... Parts>
absl::Status BrokenPayload(const Parts&... parts) {
  return absl::InvalidArgumentError(absl::StrCat(parts...));
}

// Copies a payload that must be exactly one `Wire`.
template <typename Wire>
absl::Status LoadPayload(const char* name, std::span<const std::byte> payload, Wire& wire) {
  if (payload.size() != sizeof(Wire)) {
    return BrokenPayload(name, " payload is ", payload.size(), " bytes; it must be ", sizeof(Wire));
  }
  std::memcpy(&wire, payload.data(), sizeof(Wire));
  return absl::OkStatus();
}

inline absl::Status ReservedNotZero(const char* name) {
  return BrokenPayload(name, ": a reserved field is not 0");
}

template <typename Wire>
std::span<const std::byte> PayloadOf(const Wire& wire) {
  return std::as_bytes(std::span<const Wire, 1>(&wire, 1));
}

}  // namespace vmbfs::hyperv
