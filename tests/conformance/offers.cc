// Statements 21 to 27: what offers hold, and when they come.

#include <algorithm>
#include <set>

#include "absl/strings/str_cat.h"
#include "tests/conformance/host_device.h"
#include "tests/conformance/imc_client.h"
#include "tests/conformance/statement.h"

namespace vmbfs::conformance {
namespace {

// Offer flags that are there only with features nobody asks for here.
constexpr uint32_t kConfidentialFlags = 0x0002 | 0x0004;
constexpr uint32_t kPinnedFlag = 0x0008;
constexpr uint32_t kPipeFlag = 0x0010;

void OffersAreWellFormed(const Bench& bench, Verdict& verdict) {
  RawGuest guest(bench.options, verdict);
  for (const uint32_t version : kVersions) {
    guest.Connect({.version = version});
    verdict.Expect(!guest.offers().empty(), "nothing is offered");
    for (const Offer& offer : guest.offers()) {
      verdict.Expect(AllZero(ByteView(offer.bytes).subspan(40, 16)),
                     "reserved bytes at 40: ", ToHex(ByteView(offer.bytes).subspan(40, 16)));
      verdict.Expect(Get(offer.bytes, 190, 2) == 1, "dedicated interrupt is ",
                     Get(offer.bytes, 190, 2));
      const bool monitored = Get(offer.bytes, 189, 1) != 0;
      const uint64_t monitor = Get(offer.bytes, 188, 1);
      verdict.Expect(monitored ? monitor < 128 : monitor == 0xFF, "monitor id ", monitor,
                     monitored ? " of an allocated monitor" : " without a monitor");
    }
  }
}

// Section 2.10 has the whole message; the ids are the server's to choose.
void PipeOffersSaySo(const Bench& bench, Verdict& verdict) {
  RawGuest guest(bench.options, verdict);
  guest.Connect();
  for (const Offer& offer : guest.offers()) {
    const uint32_t pipe_type = Get32(offer.bytes, 60);
    verdict.Expect((offer.flags() & kPipeFlag) == 0 || pipe_type == 0 || pipe_type == 4, "channel ",
                   offer.channel_id(), " is a pipe of type ", pipe_type);
  }
  const Offer imc = guest.Imc();
  Bytes expected = FromHex(
      "0100000000000000c3c176c376d2d248 90a9c04748072c60d1e7e5c448d7fc4a"
      "979d683167910a550000000000000000 00000000000000001000000004000000");
  expected.resize(196);
  Put(expected, 184, 4, imc.channel_id());
  Put(expected, 188, 4, 0x000100FF);
  Put(expected, 192, 4, imc.connection_id());
  // The last four bytes of the user area may say that RDMA reads are offered.
  Put(expected, 60 + 116, 4, Get32(imc.bytes, 60 + 116) & 1);
  const auto differs = std::ranges::mismatch(imc.bytes, expected);
  verdict.Expect(differs.in1 == imc.bytes.end(), "the IMC offer differs from the sheet's at ",
                 differs.in1 - imc.bytes.begin());
}

void FlagsNeedTheirFeatures(const Bench& bench, Verdict& verdict) {
  RawGuest guest(bench.options, verdict);
  for (const uint32_t features : {0U, 0x2FU, 0x6FU, 0xEFU, 0x7FU, 0xFFU}) {
    guest.Connect({.features = features, .bytes = 56});
    for (const Offer& offer : guest.offers()) {
      verdict.Expect((guest.features() & 0x10) != 0 || (offer.flags() & kConfidentialFlags) == 0,
                     "offer flags ", absl::Hex(offer.flags()), " without feature 0x10");
      verdict.Expect((guest.features() & 0x80) != 0 || (offer.flags() & kPinnedFlag) == 0,
                     "offer flags ", absl::Hex(offer.flags()), " without feature 0x80");
    }
  }
}

void OffersEndOnce(const Bench& bench, Verdict& verdict) {
  RawGuest guest(bench.options, verdict);
  for (const uint32_t version : {kVersion2_4, kVersion6_0}) {
    guest.Connect({.version = version});
    guest.ExpectSilence("AllOffersDelivered");
    guest.ExpectDropped(Message(kRequestOffers), "a second RequestOffers");
  }
}

using Ids = std::vector<std::pair<Bytes, uint32_t>>;

Ids IdsOf(const RawGuest& guest) {
  Ids ids;
  for (const Offer& offer : guest.offers()) {
    const ByteView view(offer.bytes);
    Bytes key(view.begin() + 8, view.begin() + 40);
    Append(key, view.subspan(180, 2));
    ids.emplace_back(std::move(key), offer.channel_id());
  }
  std::ranges::sort(ids);
  return ids;
}

void IdsAreUniqueAndStay(const Bench& bench, Verdict& verdict) {
  Ids first;
  for (int link = 0; link < 2; ++link) {
    RawGuest guest(bench.options, verdict);
    for (int round = 0; round < 3; ++round) {
      guest.Connect();
      const Ids ids = IdsOf(guest);
      std::set<uint32_t> numbers;
      for (const auto& [key, id] : ids) {
        numbers.insert(id);
        verdict.Expect(id >= 1 && id <= 2047, "channel id ", id);
      }
      verdict.Expect(numbers.size() == ids.size(), "two offers have one channel id");
      if (first.empty()) first = ids;
      verdict.Expect(ids == first, "the channel ids changed with a new connection");
      if (round == 1) guest.Unload();
    }
  }
}

void ADeviceIsOfferedAtItsTime(const Bench& bench, Verdict& verdict) {
  HostDevice device(bench, verdict);
  RawGuest guest(bench.options, verdict);
  device.Detach();
  guest.SendContact({});
  guest.Settle();
  device.Attach();
  guest.ExpectSilence("a device added before RequestOffers");
  guest.CollectOffers();
  const Offer offer = guest.Imc();
  guest.ExpectSilence("AllOffersDelivered");
  device.Detach();
  guest.Await(kRescind);
  guest.Post(MessageWith(kRelIdReleased, {offer.channel_id()}));
  guest.Settle();
  device.Attach();
  const Offer added(guest.Await(kOfferChannel).bytes);
  verdict.Expect(std::ranges::equal(added.instance_id(), offer.instance_id()),
                 "another device was offered");
  guest.ExpectSilence("the offer of an added device");
}

}  // namespace

std::vector<Statement> OfferStatements() {
  return {
      {21, "offers: reserved bytes zero, dedicated interrupt, no monitor", OffersAreWellFormed},
      {22, "pipe offers have flag 0x10 and pipe type 0 or 4", PipeOffersSaySo},
      {23, "offer flags 0x2, 0x4 and 0x8 need their features", FlagsNeedTheirFeatures},
      {24, "one AllOffersDelivered; a second RequestOffers yields nothing", OffersEndOnce},
      {25, "channel ids are 1 to 2047, unique, and the same after reconnecting",
       IdsAreUniqueAndStay},
      {26, "a device added early is in the list only, a late one is offered at once",
       ADeviceIsOfferedAtItsTime},
      {27, "registering a key twice is refused", RunsInProcess},
  };
}

}  // namespace vmbfs::conformance
