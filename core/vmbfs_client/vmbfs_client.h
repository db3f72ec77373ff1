// A vmbfs client on an open channel, as the firmware's is: one request at a
// time, exact sizes demanded. For tests, benchmarks and vmbfs-guest.

#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/vmbfs/vmbfs_format.h"
#include "hyperv/guest/guest.h"
#include "hyperv/guest/guest_ram.h"

namespace vmbfs {

struct FileInfoAnswer {
  FileStatus status{};
  bool directory = false;
  bool rdma = false;
  uint64_t size_bytes = 0;
};

struct ReadAnswer {
  FileStatus status{};
  std::vector<std::byte> data;
};

struct RdmaReadAnswer {
  FileStatus status{};
  uint32_t byte_count = 0;  // now in the buffer
};

// Thread safety: as GuestChannel. Errors of all calls: those of
// GuestChannel::Exchange, and kDataLoss where an answer has not the exact type
// and size that the firmware demands.
class VmbfsClient {
 public:
  static constexpr uint64_t kReadFileBytesMax = uint64_t{1} << 32;
  static constexpr uint32_t kRdmaBytesMax = 7 << 20;

  // REQUIRES: `channel` outlives the client.
  explicit VmbfsClient(hyperv::GuestChannel& channel) : channel_(channel) {}

  // true: the version is supported.
  absl::StatusOr<bool> Negotiate(uint32_t version = 0x00010000);

  // Errors besides: kInvalidArgument when the path does not fit a message.
  absl::StatusOr<FileInfoAnswer> GetFileInfo(std::u16string_view path);
  absl::StatusOr<ReadAnswer> Read(std::u16string_view path, uint64_t offset, uint32_t bytes);

  // Registers `buffer`, has `bytes` read into it from its start on, and takes it
  // back, as the firmware does.
  // REQUIRES: bytes <= kRdmaBytesMax, and the buffer has room for them.
  absl::StatusOr<RdmaReadAnswer> ReadRdma(std::u16string_view path, uint64_t offset, uint32_t bytes,
                                          const hyperv::GuestPages& buffer);

  // From now on ReadFile reads by RDMA what is offered so. Null: it does not.
  void UseRdma(std::shared_ptr<const hyperv::GuestPages> buffer) { rdma_ = std::move(buffer); }

  // Info, then reads as the firmware does, until the size is reached.
  // Errors: kNotFound; kFailedPrecondition for a directory; kInternal when the
  // device answers with an error; kResourceExhausted above kReadFileBytesMax;
  // kDataLoss when the file ends early, or a read succeeds with no bytes (the
  // firmware would repeat it for ever).
  absl::StatusOr<std::vector<std::byte>> ReadFile(std::u16string_view path);

  // One message as it is, and the answer to it, for tests of bad input.
  absl::StatusOr<std::vector<std::byte>> Raw(std::span<const std::byte> message);

 private:
  // The next bytes of a file of which `left` are missing. None: the file's end.
  absl::StatusOr<ReadAnswer> ReadNext(std::u16string_view path, uint64_t offset, uint64_t left,
                                      bool rdma);

  hyperv::GuestChannel& channel_;
  std::shared_ptr<const hyperv::GuestPages> rdma_;
};

}  // namespace vmbfs
