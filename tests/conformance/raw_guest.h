// A guest that does what it is told: posts any bytes, keeps message slots full,
// looks at every word the host writes. It follows shared/specs/vmbus.md section
// 11 and knows no driver.

#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "hyperv/guest/guest_ram.h"
#include "tests/conformance/bytes.h"
#include "tests/conformance/link_vmm.h"
#include "tests/conformance/verdict.h"
#include "tests/conformance/vmbus_messages.h"

namespace vmbfs::conformance {

using Milliseconds = std::chrono::milliseconds;

// How long nothing must come where nothing may come.
inline constexpr Milliseconds kSilence{150};
// Longer than a host takes for its second look at a channel that was just
// opened, with the spurious signal that this may bring.
inline constexpr Milliseconds kAfterOpen{400};
inline constexpr uint32_t kProcessors = 4;
inline constexpr uint64_t kRamBytes = 16 << 20;
inline constexpr size_t kOffersMax = 2047;

struct KitOptions {
  std::string socket_path;
  Milliseconds timeout{5'000};  // for each answer
};

// A message as it stood in its slot.
struct HostMessage {
  uint32_t vp = 0;
  uint32_t sint = 0;
  bool pending = false;  // another one waited behind it
  Bytes bytes{};

  uint32_t type() const { return Get32(bytes, 0); }
  uint32_t field(size_t offset) const { return Get32(bytes, offset); }
};

// An OfferChannel, by its offsets; zeros where it is shorter than it should be.
struct Offer {
  static constexpr size_t kBytes = 196;

  explicit Offer(Bytes message) : bytes(std::move(message)) { bytes.resize(kBytes); }

  Bytes bytes;

  uint32_t channel_id() const { return Get32(bytes, 184); }
  uint32_t connection_id() const { return Get32(bytes, 192); }
  uint32_t flags() const { return Get32(bytes, 56) & 0xFFFF; }
  ByteView interface_id() const { return ByteView(bytes).subspan(8, 16); }
  ByteView instance_id() const { return ByteView(bytes).subspan(24, 16); }
};

// Thread safety: one thread. Every method returns at once when the verdict is
// settled, with an empty result; a broken link settles it.
// Bounds: kRamBytes of RAM unless told otherwise, kProcessors processors.
class RawGuest {
 public:
  RawGuest(const KitOptions& options, Verdict& verdict, uint64_t ram_bytes = kRamBytes);

  Verdict& verdict() { return verdict_; }
  const KitOptions& options() const { return options_; }
  Deadline deadline() const { return std::chrono::steady_clock::now() + options_.timeout; }

  // --- messages -------------------------------------------------------------

  // Posts; waits while 16 posts are on their way.
  void Post(ByteView message, uint32_t connection = kStandardConnection);
  void Post(const std::vector<Bytes>& messages);
  // Waits until every post had its effect.
  void Settle();

  // The next message from any slot, checked for its slot's form and its size.
  std::optional<HostMessage> Next(Deadline deadline);
  // The next message, which must have this type.
  HostMessage Await(uint32_t type);
  // No message comes, now that all posts had their effect.
  void ExpectSilence(absl::string_view after, Milliseconds duration = kSilence);
  // Posts what must not be answered, and listens.
  void ExpectDropped(ByteView message, absl::string_view what);
  // Answers still come: a GPADL for a channel that nobody offered is refused.
  void ExpectAlive();

  // While held, slots stay as the host filled them.
  void HoldSlots(bool held) { slots_held_ = held; }
  // A slot's 256 bytes as they stand.
  Bytes Slot(uint32_t vp, uint32_t sint) const;

  // --- connection -----------------------------------------------------------

  HostMessage SendContact(const ContactFields& fields, uint32_t connection = kStandardConnection);
  // A contact that must succeed, then all offers.
  void Connect(const ContactFields& fields = {});
  void CollectOffers();
  void Unload();
  // The VM is reset; its slots and flags are empty afterwards.
  void ResetVm();
  // Features that the last contact was answered with.
  uint32_t features() const { return features_; }

  const std::vector<Offer>& offers() const { return offers_; }
  // The vmbfs device of this instance; nullptr if it is not offered.
  const Offer* FindOffer(ByteView instance_id) const;
  // The IMC device's; fails without one.
  Offer Imc();
  // The boot device's, for statements about two channels; nullopt without one.
  std::optional<Offer> Boot() const;

  // --- GPADLs and channels --------------------------------------------------

  uint32_t NewGpadlId() { return next_gpadl_id_++; }
  // Creates one; the status of the answer, which must echo its ids.
  uint32_t CreateGpadl(const GpadlFields& fields);
  // The same, and it must succeed.
  void CreateGoodGpadl(const GpadlFields& fields);
  void TearDownGpadl(uint32_t channel_id, uint32_t gpadl_id);
  // Opens; the status of the answer, which must echo its ids.
  uint32_t OpenChannel(const OpenFields& fields);

  std::vector<uint64_t> Pages(size_t count,
                              hyperv::RamLayout layout = hyperv::RamLayout::kScattered);
  std::span<std::byte> Page(uint64_t page_frame) const { return ram_->Page(page_frame); }
  std::span<std::byte> ram() const;

  // --- signals --------------------------------------------------------------

  void Signal(uint32_t connection);
  void SignalByFrame(uint32_t connection);
  // Takes and clears an event flag.
  bool TakeFlag(uint32_t vp, uint32_t flag);
  bool FlagIsSet(uint32_t vp, uint32_t flag) const;
  // Waits until a flag is set, and takes it.
  bool AwaitFlag(uint32_t vp, uint32_t flag, Deadline deadline);
  bool AnyFlagSet() const;
  uint64_t Interrupts(uint32_t vp) const;
  std::optional<pid_t> server_process() const;

  // Sleeps until an interrupt or a frame; false at the deadline. Messages are
  // taken on the way.
  bool Wait(Deadline deadline);
  // Looks again and again until `condition` holds; false at the deadline.
  bool Until(const std::function<bool()>& condition);
  // Lets time pass, looking after the link.
  void Idle(Milliseconds duration);

 private:
  bool ok() const { return verdict_.open() && vmm_ != nullptr; }
  void TakeMessages();
  void TakeMessage(uint32_t vp, uint32_t sint);
  std::span<std::byte> SlotBytes(uint32_t vp, uint32_t sint) const;
  std::span<std::byte> FlagByte(uint32_t vp, uint32_t flag) const;

  const KitOptions& options_;
  Verdict& verdict_;
  std::unique_ptr<hyperv::GuestRam> ram_;
  std::vector<SynicPages> processors_;
  std::unique_ptr<LinkVmm> vmm_;
  bool slots_held_ = false;
  std::deque<HostMessage> messages_;
  std::vector<Offer> offers_;
  uint32_t features_ = 0;
  uint32_t next_gpadl_id_ = 1;
};

}  // namespace vmbfs::conformance
