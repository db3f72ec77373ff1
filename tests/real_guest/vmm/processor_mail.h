// What the threads of virtual processors have for the main thread: SynIC
// changes, posted messages, signals, and the end of the machine.
//
// A processor never waits for the link: it leaves its message here, gets the
// hypercall's status at once, and goes on.
// Trust: the guest's values; those that name guest memory are checked by their users.

#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "hyperv/file_descriptor/unique_fd.h"
#include "hyperv/link/link_format.h"

namespace vmbfs::test_vmm {

inline constexpr uint64_t kSynicEnabled = 1;  // in SCONTROL, SIMP and SIEFP
inline constexpr uint64_t kSintMasked = uint64_t{1} << 16;

// One processor's synthetic interrupt controller, as after its reset.
struct SynicState {
  uint64_t scontrol = 0;
  uint64_t siefp = 0;
  uint64_t simp = 0;
  uint64_t sint2 = kSintMasked;
  friend bool operator==(const SynicState&, const SynicState&) = default;
};

struct PostedMessage {
  uint32_t vp = 0;
  uint32_t connection = 0;
  uint32_t type = 0;
  uint32_t size = 0;  // of the payload, at most kSynicPayloadBytesMax
  std::array<std::byte, hyperv::kSynicPayloadBytesMax> payload{};

  std::span<const std::byte> bytes() const { return std::span(payload).first(size); }
};

enum class Ending { kPowerOff, kReset, kFailure };

// Thread safety: any thread.
// Bounds: kLinkPostsMax messages from PostMessage to PostsDone, as many signals
// as a VMBus has channels, one state a processor.
class ProcessorMail {
 public:
  // Without a VMBus no message has anywhere to go.
  explicit ProcessorMail(bool has_vmbus);

  // Processors' threads. The status is the hypercall's (shared/specs/vmbus.md 1.4).
  uint16_t PostMessage(const PostedMessage& message);
  void SignalEvent(uint32_t connection, uint16_t flag);
  void SetSynic(uint32_t vp, const SynicState& state);
  // The first counts.
  void End(Ending ending, const std::string& reason);

  // The main thread.
  struct Contents {
    std::map<uint32_t, SynicState> synics;            // those that changed, by processor
    std::vector<PostedMessage> posts;                 // in order
    std::set<std::pair<uint32_t, uint16_t>> signals;  // connection, flag
  };
  Contents Take();
  // So many of the messages taken had their effect.
  void PostsDone(size_t count);
  std::optional<std::pair<Ending, std::string>> ending() const;
  // The machine is gone, and with it all of the guest's.
  void Clear();
  // Readable when there is something new; Take makes it unreadable.
  int fd() const { return wake_.get(); }

 private:
  static constexpr size_t kSignalsMax = 2048;

  const bool has_vmbus_;
  const hyperv::UniqueFd wake_;
  mutable std::mutex mutex_;  // guards all below; nothing is called with it held
  Contents contents_;
  size_t unfinished_posts_ = 0;
  std::optional<std::pair<Ending, std::string>> ending_;
};

}  // namespace vmbfs::test_vmm
