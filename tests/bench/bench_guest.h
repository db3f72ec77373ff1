// A guest in user space with one channel open, which reads as the rows need:
// awake (it never sleeps), asleep (it sleeps before each answer), or with its
// rings kept full.

#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/vmbfs/vmbfs_format.h"
#include "hyperv/guest/guest.h"
#include "hyperv/guest/guest_ram.h"

namespace vmbfs::bench {

inline constexpr std::u16string_view kFileName = u"bench.bin";

// Thread safety: one thread at a time. Errors: as hyperv::Guest's; kDataLoss
// where an answer is not the bytes that were asked for in number.
class BenchGuest {
 public:
  static absl::StatusOr<std::unique_ptr<BenchGuest>> Open(const std::string& socket_path,
                                                          hyperv::GuestProfile profile,
                                                          uint64_t ram_bytes);
  ~BenchGuest();

  // One read of kReadBytesMax, copied out of the ring; `offset` as the file has.
  // The answer's data is in block().
  absl::Status ReadAwake(uint64_t offset);
  absl::Status ReadAsleep(uint64_t offset);
  std::span<const std::byte> block() const;

  // Reads blocks from `first_offset` on until `bytes` came, as many requests on
  // their way as the ring holds (kInFlightMax at most). Awake or asleep.
  enum class Waiting { kSpin, kSleep };
  absl::Status Stream(uint64_t first_offset, uint64_t bytes, Waiting waiting);
  static constexpr int kInFlightMax = 64;

  // An RDMA read into pages of the guest, set-up and tear-down included, awake.
  // REQUIRES: bytes <= VmbfsClient::kRdmaBytesMax.
  absl::Status ReadRdmaAwake(uint64_t offset, uint32_t bytes);
  // Those pages: side by side with profile firmware.
  absl::StatusOr<std::shared_ptr<const hyperv::GuestPages>> RdmaPages();

  hyperv::GuestChannel& channel() { return *channel_; }

 private:
  BenchGuest() = default;
  void SetOffset(uint64_t offset);
  absl::Status CheckAnswer(std::span<const std::byte> answer) const;
  absl::StatusOr<int> TakeAnswers();

  std::unique_ptr<hyperv::Guest> guest_;
  std::unique_ptr<hyperv::GuestChannel> channel_;
  std::unique_ptr<hyperv::GuestChannel> awake_;  // the same, but Exchange spins
  std::shared_ptr<const hyperv::GuestPages> rdma_pages_;
  std::vector<std::byte> request_;
  std::vector<std::byte> answer_;
};

}  // namespace vmbfs::bench
