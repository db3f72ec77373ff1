// Requests from bytes, and responses to bytes.
//
// Trust: messages are the guest's; a request that exists is well formed.
// Rules: shared/specs/vmbfs.md, "What a broken request gets"; README.md.

#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <variant>

#include "absl/status/statusor.h"
#include "core/path/guest_path.h"
#include "core/vmbfs/vmbfs_format.h"

namespace vmbfs {

struct VersionRequest {
  uint32_t version = 0;
};

struct GetFileInfoRequest {
  GuestPath path;
};

struct ReadFileRequest {
  uint32_t byte_count = 0;  // at most kReadBytesMax
  uint64_t offset = 0;
  GuestPath path;
};

struct ReadFileRdmaRequest {
  uint32_t handle = 0;  // of the registered buffer
  uint32_t byte_count = 0;
  uint64_t offset = 0;        // in the file
  uint64_t token_offset = 0;  // in the buffer
  GuestPath path;
};

// Of a known kind, but broken: gets the response of that kind that says so.
struct BadRequest {
  MessageType type{};  // a request's
  std::string reason;  // numbers and our own words, no bytes of the guest's
};

using Request = std::variant<VersionRequest, GetFileInfoRequest, ReadFileRequest,
                             ReadFileRdmaRequest, BadRequest>;

// Parses a private copy of one message. Does not allocate for a well-formed
// one with an ordinary path (GuestPath::kInlineUnits).
//
// Errors: kInvalidArgument  no legal answer exists: fault the channel.
absl::StatusOr<Request> ParseRequest(std::span<const std::byte> message);

// A response but for the data of a read, ready to be sent.
// Thread safety: a value.
class Response {
 public:
  static Response Version(VersionStatus status);
  static Response FileInfo(FileStatus status, uint32_t flags, uint64_t size_bytes);
  static Response ReadFile(FileStatus status);  // the data goes behind it
  static Response ReadFileRdma(FileStatus status, uint32_t byte_count);

  std::span<const std::byte> bytes() const { return {storage_.data(), size_bytes_}; }

 private:
  template <typename Message>
  explicit Response(const Message& message);

  std::array<std::byte, sizeof(GetFileInfoResponseMessage)> storage_;
  size_t size_bytes_;
};

}  // namespace vmbfs
