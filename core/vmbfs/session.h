// What one open vmbfs channel has agreed and answers. No I/O.
//
// Trust: messages are the guest's. Rules: shared/specs/vmbfs.md; README.md.

#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <utility>
#include <variant>

#include "absl/status/statusor.h"
#include "core/backing/backing.h"
#include "core/vmbfs/codec.h"
#include "core/vmbfs/vmbfs_status.h"

namespace vmbfs {

// A read to be done and answered: all of these bytes, or status 3.
struct FileRead {
  const File* file = nullptr;  // lives as long as the session's backing
  uint64_t offset = 0;
  size_t byte_count = 0;  // 1 to kReadBytesMax, all within the file
};

using Answer = std::variant<Response, FileRead>;

// Thread safety: one strand.
// Ownership: holds on to the backing it was made with, and answers from no
// other: that is the pin.
class Session {
 public:
  // Counts what it sees in `status`. REQUIRES: `status` outlives it; backing
  // is not null.
  Session(std::shared_ptr<const Backing> backing, VmbfsDeviceStatus& status)
      : backing_(std::move(backing)), status_(status) {}

  // What to answer to one message.
  //
  // Errors: kInvalidArgument  no legal answer exists: fault the channel.
  absl::StatusOr<Answer> Handle(std::span<const std::byte> message);

  // Whether a version was agreed. It stays agreed.
  bool ready() const { return ready_; }
  const std::shared_ptr<const Backing>& backing() const { return backing_; }

 private:
  Answer AnswerTo(const VersionRequest& request);
  Answer AnswerTo(const GetFileInfoRequest& request);
  Answer AnswerTo(const ReadFileRequest& request);
  Answer AnswerTo(const ReadFileRdmaRequest& request);
  Answer AnswerTo(const BadRequest& request);

  // Counts the bad request; the answer that says so.
  Answer Refuse(MessageType type, std::string_view reason);
  void CountRequest(MessageType type);

  const std::shared_ptr<const Backing> backing_;
  VmbfsDeviceStatus& status_;
  bool ready_ = false;
};

}  // namespace vmbfs
