#include "hyperv/bus/channel_table.h"

#include <algorithm>
#include <utility>

namespace vmbfs::hyperv {

BusChannel* ChannelTable::FindByKey(const ChannelOffer& offer) {
  const auto found = by_key_.find(KeyOf(offer));
  return found == by_key_.end() ? nullptr : found->second.get();
}

BusChannel* ChannelTable::FindById(uint32_t guest_channel_id) {
  return guest_channel_id < by_id_.size() ? by_id_[guest_channel_id] : nullptr;
}

BusChannel* ChannelTable::FindByOffer(OfferId offer) {
  const auto found = by_offer_.find(offer);
  return found == by_offer_.end() ? nullptr : found->second;
}

const BusChannel* ChannelTable::FindByOffer(OfferId offer) const {
  const auto found = by_offer_.find(offer);
  return found == by_offer_.end() ? nullptr : found->second;
}

BusChannel* ChannelTable::FindBySuccessor(OfferId offer) {
  const auto found = by_successor_.find(offer);
  return found == by_successor_.end() ? nullptr : found->second;
}

std::vector<BusChannel*> ChannelTable::InOrder() {
  std::vector<BusChannel*> channels;
  channels.reserve(by_key_.size());
  for (auto& [key, channel] : by_key_) channels.push_back(channel.get());
  return channels;
}

std::vector<const BusChannel*> ChannelTable::InOrder() const {
  std::vector<const BusChannel*> channels;
  channels.reserve(by_key_.size());
  for (const auto& [key, channel] : by_key_) channels.push_back(channel.get());
  return channels;
}

BusChannel& ChannelTable::Add(const ChannelOffer& offer) {
  auto channel = std::make_unique<BusChannel>();
  channel->offer = OfferId{++last_offer_};
  channel->description = offer;
  BusChannel& added = *channel;
  by_offer_.emplace(added.offer, &added);
  by_key_.emplace(KeyOf(offer), std::move(channel));
  return added;
}

void ChannelTable::AddSuccessor(BusChannel& channel, const ChannelOffer& offer) {
  channel.successor = BusChannel::Successor{OfferId{++last_offer_}, offer};
  by_successor_.emplace(channel.successor->offer, &channel);
}

void ChannelTable::RemoveSuccessor(BusChannel& channel) {
  by_successor_.erase(channel.successor->offer);
  channel.successor.reset();
}

void ChannelTable::Succeed(BusChannel& channel) {
  by_offer_.erase(channel.offer);
  channel.offer = channel.successor->offer;
  channel.description = channel.successor->description;
  by_offer_.emplace(channel.offer, &channel);
  RemoveSuccessor(channel);
  channel.withdrawn = false;
}

void ChannelTable::Remove(BusChannel& channel) {
  FreeIds(channel);
  by_offer_.erase(channel.offer);
  by_key_.erase(KeyOf(channel.description));
}

void ChannelTable::AssignId(BusChannel& channel, uint32_t channel_id) {
  if (channel_id == 0) {
    // One of them is free: there are no more channels than ids.
    do ++channel_id;
    while (by_id_[channel_id] != nullptr);
  }
  channel.channel_id = channel_id;
  by_id_[channel_id] = &channel;
}

void ChannelTable::AssignMonitorId(BusChannel& channel) {
  const auto free = std::find(monitor_ids_taken_.begin(), monitor_ids_taken_.end(), false);
  if (free == monitor_ids_taken_.end()) return;
  *free = true;
  channel.monitor_id = static_cast<uint8_t>(free - monitor_ids_taken_.begin());
}

void ChannelTable::FreeIds(BusChannel& channel) {
  if (channel.monitor_id.has_value()) monitor_ids_taken_[*channel.monitor_id] = false;
  channel.monitor_id.reset();
  if (channel.channel_id == 0) return;
  by_id_[channel.channel_id] = nullptr;
  channel.channel_id = 0;
}

}  // namespace vmbfs::hyperv
