// The channels of one bus: who is who by key, by offer and by channel id.
//
// Trust: a channel id passed to FindById is the guest's. Rules: README.md.

#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <tuple>
#include <vector>

#include "hyperv/bus/bus.h"
#include "hyperv/bus/channel_rules.h"
#include "hyperv/channel/channel_device.h"
#include "hyperv/gpadl/range_list.h"
#include "hyperv/guid/guid.h"
#include "hyperv/message/message.h"
#include "hyperv/message/message_format.h"

namespace vmbfs::hyperv {

struct BusChannel {
  struct Successor {
    OfferId offer{};
    ChannelOffer description;
  };

  OfferId offer{};
  ChannelOffer description;
  ChannelState state = ChannelState::kReleased;
  uint32_t channel_id = 0;            // 0: none assigned
  std::optional<uint8_t> monitor_id;  // only with a channel id
  bool withdrawn = false;             // the host took the offer back
  // With withdrawn: the same key came back and waits until the guest lets go.
  std::optional<Successor> successor;

  // While RingInUse.
  OpenChannelRequest open;
  const PageRanges* ring = nullptr;  // held in the GPADL table
  ChannelSignals signals;            // the defaults, or what the open asked for
  uint32_t target_vp = 0;            // where interrupts go now
  OpenChannelRequest reopen;         // in kClosingReopen: the next open

  // The processor that interrupts are moving to, and the one after it.
  std::optional<uint32_t> moving_to_vp;
  std::optional<uint32_t> next_vp;
};

// Thread safety: one strand. Bounds: kChannelsMax channels.
// Ownership: a BusChannel lives at its address until Remove.
class ChannelTable {
 public:
  static constexpr size_t kChannelsMax = kChannelIdMax;

  BusChannel* FindByKey(const ChannelOffer& offer);
  BusChannel* FindById(uint32_t guest_channel_id);
  BusChannel* FindByOffer(OfferId offer);
  const BusChannel* FindByOffer(OfferId offer) const;
  BusChannel* FindBySuccessor(OfferId offer);

  size_t size() const { return by_key_.size(); }
  // By interface, instance and sub-channel: the same in every connection.
  std::vector<BusChannel*> InOrder();
  std::vector<const BusChannel*> InOrder() const;

  // REQUIRES: the key is new, size() < kChannelsMax.
  BusChannel& Add(const ChannelOffer& offer);
  // REQUIRES: withdrawn, no successor yet.
  void AddSuccessor(BusChannel& channel, const ChannelOffer& offer);
  // REQUIRES: has a successor.
  void RemoveSuccessor(BusChannel& channel);
  // The successor takes the withdrawn offer's place. REQUIRES: has one.
  void Succeed(BusChannel& channel);
  void Remove(BusChannel& channel);

  // Gives it the lowest free id, or `channel_id` when that is not 0.
  // REQUIRES: it has none; `channel_id` is free.
  void AssignId(BusChannel& channel, uint32_t channel_id = 0);
  // Gives it the lowest free monitor id, unless all are taken.
  // REQUIRES: it has none yet, but a channel id.
  void AssignMonitorId(BusChannel& channel);
  // Both of them.
  void FreeIds(BusChannel& channel);

 private:
  using Key = std::tuple<Guid, Guid, uint16_t>;
  static Key KeyOf(const ChannelOffer& offer) {
    return {offer.interface_id, offer.instance_id, offer.subchannel_index};
  }

  std::map<Key, std::unique_ptr<BusChannel>> by_key_;
  std::map<OfferId, BusChannel*> by_offer_;
  std::map<OfferId, BusChannel*> by_successor_;
  std::array<BusChannel*, kChannelIdMax + 1> by_id_{};
  std::array<bool, kMonitorIds> monitor_ids_taken_{};
  uint64_t last_offer_ = 0;
};

}  // namespace vmbfs::hyperv
