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

// The same into a buffer that the guest registered.
struct RdmaRead {
  const File* file = nullptr;  // as above
  uint64_t offset = 0;
  uint32_t byte_count = 0;       // at least 1, all within the file
  uint32_t requested_bytes = 0;  // what the buffer must have room for
  uint32_t handle = 0;
  uint64_t token_offset = 0;  // in the buffer
};

using Answer = std::variant<Response, FileRead, RdmaRead>;

// Thread safety: one strand.
// Ownership: holds on to the backing it was made with, and answers from no
// other: that is the pin.
class Session {
 public:
  // RDMA reads are offered for files of at least `rdma_bytes_min`; 0: they are
  // off. Counts what it sees in `status`. REQUIRES: `status` outlives it;
  // backing is not null.
  Session(std::shared_ptr<const Backing> backing, uint64_t rdma_bytes_min,
          VmbfsDeviceStatus& status)
      : backing_(std::move(backing)), rdma_bytes_min_(rdma_bytes_min), status_(status) {}

  // What to answer to one message.
  //
  // Errors: kInvalidArgument  no legal answer exists: fault the channel.
  absl::StatusOr<Answer> Handle(std::span<const std::byte> message);

  // The answer to an RDMA read whose buffer is not what it has to be.
  Response RefuseRdma(std::string_view reason);

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
  Response Refuse(MessageType type, std::string_view reason);
  void CountRequest(MessageType type);

  const std::shared_ptr<const Backing> backing_;
  const uint64_t rdma_bytes_min_;
  VmbfsDeviceStatus& status_;
  bool ready_ = false;
};

}  // namespace vmbfs
