// What link_fuzz does after each input: the next connection is served.

#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "hyperv/fuzz_input/fuzz_input.h"
#include "hyperv/link/link_fuzz_frames.h"
#include "hyperv/link/link_fuzz_server.h"
#include "hyperv/link/link_fuzz_vmm.h"
#include "hyperv/link/test_frames.h"

namespace vmbfs::hyperv {

// A new VMM with a new guest, from HELLO to a packet that comes back.
inline void ServeNextConnection(Form form) {
  Vmm vmm(form);
  const auto ask = [&](uint32_t number, std::span<const std::byte> payload,
                       const std::vector<int>& descriptors = {}) {
    vmm.Send(0x564C0000 | number, payload, true, descriptors, 2);
    Require(vmm.NothingIsUnanswered() && !vmm.ended(), "a new connection is served");
  };
  uint64_t posts = 0;
  const auto post = [&](std::span<const std::byte> message) {
    vmm.Send(0x564C0021, WireBytes(PostOf(++posts, message)), false);
    Require(vmm.acknowledged() == posts, "its posts are taken");
  };
  const auto expect = [&](uint32_t type) {
    const std::vector<std::byte> message = vmm.TakeMessage();
    Require(WordAt(message, 0) == type, "its guest gets its messages");
    return message;
  };
  ask(0x01, Hello(form));
  ask(0x02, WireBytes(Region(1, 0, Ram().bytes())), {Ram().fd()});
  ask(0x02, WireBytes(Region(2, kRingGpa, Rings().bytes())), {Rings().fd()});
  if (form != Form::kChannel) ask(0x20, WireBytes(SynicOf(1, 2)));
  ask(0x04, {});
  Require(TheServer().status().memory_regions == 2, "its memory is there, and no other");
  uint32_t connection = 0;
  if (form == Form::kChannel) {
    ask(0x50, GpadlAdd(vmm.channel(), 1, kRingPages, kRingPages, 1));
    Require(vmm.result() == 0, "its GPADL is accepted");
    ask(0x52, WireBytes(ChannelOpen(vmm.channel(), 1)), {vmm.kick_fd(), vmm.interrupt_fd()});
    Require(vmm.result() == 0, "its channel opens");
  } else {
    post(VmbusMessage(14, {0x00040000, 0, 0, 0, 0, 0, 0, 0}));
    expect(15);
    post(VmbusMessage(3, {}));
    connection = WordAt(expect(1), 192);
    expect(4);
    post(RingGpadl());
    Require(WordAt(expect(10), 16) == 0, "its GPADL is accepted");
    post(OpenMessage());
    Require(WordAt(expect(6), 16) == 0, "its channel opens");
  }

  // One packet of 8 bytes into the first ring, and back in the second.
  constexpr size_t kData = 4096;
  constexpr size_t kSecondRing = kRingPages / 2 * 4096;
  Rings().SetWord(kData, 6 | 2 << 16);
  Rings().SetWord(kData + 4, 3);
  Rings().SetWord(kData + 16, 0xC0FFEE);
  Rings().SetWord(0, 32);
  form == Form::kChannel ? vmm.Kick() : vmm.RingDoorbell(connection);
  Require(Rings().Word(kSecondRing) == 32, "its device answers");
  Require(Rings().Word(kSecondRing + kData + 16) == 0xC0FFEE, "what it was sent");
  Require(form == Form::kDirect ? (Ram().Word(2 * 4096 + 2 * 256) & 2) != 0 : vmm.TakeInterrupt(),
          "and the guest is signalled");
}

}  // namespace vmbfs::hyperv
