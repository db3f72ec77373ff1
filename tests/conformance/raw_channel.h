// A channel's two rings, driven by hand after the rules of shared/specs/vmbus.md
// sections 4 and 5: no code is shared with the ring of the server.

#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "hyperv/guest/guest_ram.h"
#include "tests/conformance/bytes.h"
#include "tests/conformance/raw_guest.h"

namespace vmbfs::conformance {

// Offsets of a control page's words.
inline constexpr size_t kIn = 0;
inline constexpr size_t kOut = 4;
inline constexpr size_t kInterruptMask = 8;
inline constexpr size_t kPendingSendSize = 12;
inline constexpr size_t kFeatureBits = 64;

inline constexpr size_t kTrailerBytes = 8;

// One ring: a control page and its data pages.
class RawRing {
 public:
  RawRing(const RawGuest& guest, std::span<const uint64_t> page_frames);

  // Of the data area.
  uint32_t size() const { return static_cast<uint32_t>((pages_.size() - 1) * hyperv::kPageBytes); }
  // Sequentially consistent: the fences of section 4.3 are these.
  uint32_t Load(size_t control_offset) const;
  void Store(size_t control_offset, uint32_t value);
  // Data bytes, round the end.
  void Write(uint32_t offset, ByteView bytes);
  Bytes Read(uint32_t offset, size_t bytes) const;
  // Bytes in use between two indices.
  uint32_t Used(uint32_t in, uint32_t out) const { return (in + size() - out) % size(); }

 private:
  std::byte& At(uint32_t offset) const;

  std::vector<std::span<std::byte>> pages_;
};

struct ChannelShape {
  size_t to_host_pages = 5;  // with their control page
  size_t from_host_pages = 5;
  hyperv::RamLayout layout = hyperv::RamLayout::kContiguous;
  uint32_t target_vp = 0;
  uint32_t start_index = 0;  // of all four indices at open
};

// Thread safety: one thread. A settled verdict makes every method return.
class RawChannel {
 public:
  RawChannel(RawGuest& guest, const Offer& offer, const ChannelShape& shape = {});

  const Offer& offer() const { return offer_; }
  RawRing& to_host() { return to_host_; }
  RawRing& from_host() { return from_host_; }
  std::span<const uint64_t> page_frames() const { return page_frames_; }
  uint32_t gpadl_id() const { return gpadl_.gpadl_id; }

  // --- life cycle -----------------------------------------------------------

  // As they are sent; a statement may change them before.
  GpadlFields& gpadl() { return gpadl_; }
  OpenFields& open() { return open_; }
  void Create() { guest_.CreateGoodGpadl(gpadl_); }
  void Open();
  void Close() { guest_.Post(MessageWith(kCloseChannel, {offer_.channel_id()})); }
  void TearDown() { guest_.TearDownGpadl(offer_.channel_id(), gpadl_.gpadl_id); }
  // Both control pages as before an open, and our own indices.
  void InitialiseRings(uint32_t start_index = 0);

  // As if an earlier life had left this much unread from the host.
  void LeaveUnread(uint32_t bytes);

  // --- guest to host --------------------------------------------------------

  // Places a packet behind the last one, and its trailer; false if it does not fit.
  bool Put(ByteView packet);
  // Makes what was put visible; true when rule 4.3 asks for a signal.
  bool Publish();
  void Signal() { guest_.Signal(connection_id_); }
  // Put, Publish and the signal that is due; waits for room as a writer does.
  void Send(ByteView packet);
  // The same without a signal: one that is due goes with the next Send, as the
  // firmware does with registrations (section 5.3).
  void SendDeferred(ByteView packet);
  uint32_t put_index() const { return put_index_; }

  // --- host to guest --------------------------------------------------------

  // A packet waits to be taken.
  bool HasPacket() const { return from_host_.Load(kIn) != taken_index_; }
  // The data of the next packet, which must be a pipe message of the host's.
  std::optional<Bytes> Take();
  // Gives back what was taken; true when the host waits for that room.
  bool Free();
  // Take and Free, with the signal that is due, without waiting.
  std::optional<Bytes> TakeAndFree();
  // The same, sleeping until the host signals (or, without interrupts, looking
  // again and again).
  std::optional<Bytes> Receive(Deadline deadline);
  // An answer to one vmbfs message.
  Bytes Exchange(ByteView message);
  // Whether the host answers nothing for a while, though it is signalled.
  bool IsStopped(Milliseconds duration = kSilence);

  // Where signals are awaited from now on.
  void ListenAt(uint32_t vp, uint32_t flag, uint32_t connection_id);

 private:
  bool AwaitSignal(Deadline deadline);

  RawGuest& guest_;
  const Offer offer_;
  const std::vector<uint64_t> page_frames_;
  RawRing to_host_;
  RawRing from_host_;
  GpadlFields gpadl_;
  OpenFields open_;
  uint32_t vp_;
  uint32_t flag_;
  uint32_t connection_id_;
  bool signal_deferred_ = false;
  uint32_t put_index_ = 0;        // behind the last packet that was put
  uint32_t published_index_ = 0;  // `in` of guest to host
  uint32_t taken_index_ = 0;      // behind the last packet that was taken
  uint32_t freed_index_ = 0;      // `out` of host to guest
};

}  // namespace vmbfs::conformance
