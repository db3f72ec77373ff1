// A whole link by what a VMM and its guest may send: frames valid, mangled and
// cut, descriptors of the wrong kind, bytes in guest memory; at both levels, with
// both deliveries. What the server sends is checked frame by frame; legal frames
// never end a connection, broken ones do; and whatever happened, the next
// connection serves a guest from HELLO to an echo.
//
// Server and VMM share one thread: an input means the same each time.
// Input: a byte of options (how the VMM answers, the form of the link, that of the
// next connection, whether it is set up); then actions, a byte each and what they
// need.

#include <sys/eventfd.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <utility>
#include <vector>

#include "hyperv/file_descriptor/unique_fd.h"
#include "hyperv/fuzz_input/fuzz_input.h"
#include "hyperv/link/link_channel_format.h"
#include "hyperv/link/link_format.h"
#include "hyperv/link/link_fuzz_frames.h"
#include "hyperv/link/link_fuzz_next.h"
#include "hyperv/link/link_fuzz_server.h"
#include "hyperv/link/link_fuzz_vmm.h"
#include "hyperv/link/test_frames.h"

namespace vmbfs::hyperv {
namespace {

constexpr int kStepsMax = 100;

class LinkFuzzer {
 public:
  LinkFuzzer(FuzzInput& input, Form form, uint8_t options)
      : input_(input), form_(form), vmm_(form) {
    // A VMM that answers with the wrong descriptor is served on; no fault of ours.
    vmm_.set_answers(static_cast<Answers>(options % 4));
    if (options < 128) SetUp();
  }

  void Run() {
    for (int step = 0; step < kStepsMax && !input_.empty() && !vmm_.ended(); ++step) Step();
    // What follows a frame of any bytes may have been the rest of its payload.
    if (doubtful_) return;
    Require(!broken_ || vmm_.ended(), "broken rules end the connection");
    if (broken_) return;
    if (greeted_ && form_ == Form::kChannel) EndWaiting();
    Require(!vmm_.ended(), "legal frames do not end a connection");
    Require(vmm_.NothingIsUnanswered(), "and each that asks is answered");
  }

 private:
  void SetUp() {
    SendHello();
    const auto ram = Region(1, 0, Ram().bytes());
    const auto rings = Region(2, kRingGpa, Rings().bytes());
    Send(0x02, WireBytes(ram), true, {Ram().fd()});
    Send(0x02, WireBytes(rings), true, {Rings().fd()});
    if (form_ != Form::kChannel) Send(0x20, WireBytes(SynicOf(1, 2)), false);
    Send(0x04, {}, true);
  }

  // A legal frame, where one may be sent at all.
  void Send(uint32_t number, std::span<const std::byte> payload, bool need_ack,
            const std::vector<int>& descriptors = {}) {
    const bool always = number == 0x01 || number == 0x03 || (number >= 0x05 && number <= 0x07) ||
                        (number >= 0x50 && number <= 0x54);
    if (!greeted_) broken_ = true;
    if (number == 0x04 || number == 0x06) paused_ = false;
    CheckPause([&] {
      vmm_.Send(0x564C0000 | number, payload, need_ack || always, descriptors, need_ack ? 2 : 0);
    });
    if (number == 0x05) paused_ = true;
  }
  // While the VM is paused nothing writes to its memory.
  template <typename Action>
  void CheckPause(Action action) {
    if (!paused_) return action();
    const auto ram = Ram().Copy();
    const auto rings = Rings().Copy();
    const uint64_t messages = vmm_.messages_sent();
    static_cast<void>(vmm_.TakeInterrupt());
    action();
    Require(vmm_.messages_sent() == messages && !vmm_.TakeInterrupt(), "nor is its guest told");
    Require(ram == Ram().Copy() && rings == Rings().Copy(), "a paused VM's memory is not written");
  }
  void SendHello() {
    if (std::exchange(greeted_, true)) broken_ = true;
    Send(0x01, Hello(form_), false);
  }
  void SendPost(const LinkPostWire& post) {
    // The 17th that is not acknowledged breaks the rules; a reset drops those
    // that wait.
    if (posts_sent_ - std::max(vmm_.acknowledged(), posts_dropped_) > 16) broken_ = true;
    Send(0x21, WireBytes(post), false);
  }

  // OPEN waits for START and RESUME, GPADL_DEL of a ring in use for CLOSE.
  void EndWaiting() {
    Send(0x04, {}, true);
    Send(0x06, {}, true);
    for (uint32_t channel = 101; channel <= vmm_.channel(); ++channel) {
      Send(0x54, WireBytes(ChannelOf(channel)), true);
    }
  }

  void Step() {
    const uint32_t action = input_.Below(20);
    if (form_ == Form::kChannel && action >= 5 && action <= 14) return ChannelStep();
    switch (action) {
      case 0:
        if (input_.OneIn(8) || !greeted_) SendHello();
        return;
      case 1:
        return AddRegion();
      case 2: {
        LinkMemDelWire wire{};
        wire.id = input_.U8() % 4u;
        return Send(0x03, WireBytes(wire), input_.OneIn(2));
      }
      case 3:
        return Send(0x04 + input_.Below(3), {}, input_.OneIn(2));
      case 4:
        posts_dropped_ = posts_sent_;
        return Send(0x07, std::vector<std::byte>(8), false);
      case 5: {
        LinkSynicWire wire = SynicOf(input_.U8() % 16u, input_.U8() % 16u);
        wire.scontrol = input_.U8() % 2u;
        wire.vp = input_.U8() % 2u;
        return Send(0x20, WireBytes(wire), input_.OneIn(2));
      }
      case 6:
      case 7:
      case 8:
      case 9:
      case 10:
        return SendPost(PostOf(++posts_sent_, TakeGuestMessage()));
      case 11:
        static_cast<void>(vmm_.TakeMessage());
        return;
      case 12: {
        LinkSignalWire wire{};
        wire.connection = input_.U8();
        wire.flag = input_.U8();
        return Send(0x22, WireBytes(wire), input_.OneIn(2));
      }
      case 13: {
        LinkSintWire wire{};
        wire.sint = input_.U8() % 16u;
        return Send(0x23, WireBytes(wire), input_.OneIn(2));
      }
      case 14:
        return CheckPause([&] { vmm_.RingDoorbell(0x2001); });
      case 15:
      case 16:
        return WriteGuestMemory();
      case 17:
        return SendChannelNonsense();
      case 18:
        return SendAnything();
      default:
        return BreakARule();
    }
  }

  void ChannelStep() {
    const uint32_t channel = input_.OneIn(8) ? input_.U8() : vmm_.channel();
    const uint32_t gpadl = 1 + input_.U8() % 2u;
    switch (input_.Below(12)) {
      case 0:
      case 1:
        return Send(0x50, GpadlAdd(channel, gpadl, kRingPages, kRingPages, 1), false);
      case 2: {
        const uint32_t pages = input_.U16() % 1'024u;
        const bool listed_here = pages <= 400;
        const std::vector<int> descriptors = {input_.OneIn(2) ? Ram().fd() : event_.get()};
        return Send(0x50,
                    GpadlAdd(channel, gpadl, pages, listed_here ? pages : 0, input_.U8() % 3u),
                    false, listed_here ? std::vector<int>{} : descriptors);
      }
      case 3:
      case 4:
        return SendOpen(ChannelOpen(channel, gpadl));
      case 5:
        return Send(0x54, WireBytes(ChannelOf(channel)), false);
      case 6: {
        LinkModifyWire wire{};
        wire.channel = channel;
        wire.target_vp = input_.U8() % 3u;
        const int descriptor = input_.OneIn(4) ? Rings().fd() : vmm_.interrupt_fd();
        return Send(0x53, WireBytes(wire), false, {descriptor});
      }
      case 7:
        return Send(0x55, WireBytes(ChannelOf(channel)), input_.OneIn(2));
      case 8: {
        LinkGpadlDelWire wire{};
        wire.channel = channel;
        wire.gpadl = gpadl;
        return Send(0x51, WireBytes(wire), false);
      }
      case 9:
        return CheckPause([&] { vmm_.Kick(); });
      case 10:
        Rings().SetWord(0, input_.U8() * 8u);
        return CheckPause([&] { vmm_.Kick(); });
      default:
        TheServer().RevokeDevice();
        vmm_.Settle();
        if (input_.OneIn(2)) static_cast<void>(TheServer().OfferDevice());
        return vmm_.Settle();
    }
  }

  void SendOpen(LinkOpenWire wire) {
    const uint8_t odd = input_.U8();
    if (odd >= 208) wire.downstream_page_offset = odd % 16u;
    if (odd % 16 == 1) wire.target_vp = 0xFFFFFFFF;
    if (odd % 16 == 2) wire.target_vp = 2;
    if (odd % 16 == 3) wire.flags = odd / 16u;
    std::vector<int> descriptors = {vmm_.kick_fd(), vmm_.interrupt_fd()};
    if ((wire.flags.value() & 2) != 0) descriptors.push_back(event_.get());
    if (odd % 16 == 4) descriptors[odd / 16 % 2] = Ram().fd();
    Send(0x52, WireBytes(wire), false, descriptors);
  }

  void AddRegion() {
    LinkMemAddWire wire = Region(input_.U8() % 4u, input_.U8() * uint64_t{2048}, 4096);
    wire.bytes = input_.OneIn(4) ? input_.U64() : input_.U8() * uint64_t{2048};
    wire.file_offset = input_.OneIn(4) ? input_.U64() : 0;
    wire.flags = input_.OneIn(8) ? input_.U8() : 0;
    const std::array<int, 3> descriptors = {Ram().fd(), Rings().fd(), event_.get()};
    Send(0x02, WireBytes(wire), input_.OneIn(2), {descriptors[input_.Below(3)]});
  }

  std::vector<std::byte> TakeGuestMessage() {
    switch (input_.Below(10)) {
      case 0:
        return VmbusMessage(14, {0x00040000, 0, 0, 0, 0, 0, 0, 0});
      case 1:
        return VmbusMessage(3, {});
      case 2:
        return RingGpadl();
      case 3:
        return OpenMessage();
      case 4:
        return VmbusMessage(7, {1});
      case 5:
        return VmbusMessage(16, {});
      case 6:
        return VmbusMessage(11, {1, 1});
      case 7:
        return VmbusMessage(22, {1, input_.U8() % 3u});
      case 8:
        return VmbusMessage(14, {0x00060000, input_.U8(), 0, 0, 0, 0, 0, 0});
      default: {
        const auto bytes = input_.Bytes(input_.U8());
        return {bytes.begin(), bytes.end()};
      }
    }
  }

  void WriteGuestMemory() {
    if (input_.OneIn(2)) {  // a control word of a ring, or a packet in the first
      const size_t ring = input_.OneIn(2) ? 0 : kRingPages / 2 * 4096;
      Rings().SetWord(ring + input_.Below(4) * 4, input_.U8() * 8u);
      return;
    }
    SharedPages& pages = input_.OneIn(2) ? Ram() : Rings();
    const size_t offset = input_.U16() % (pages.bytes() - 64);
    const auto bytes = input_.Bytes(input_.U8() % 64u);
    if (!bytes.empty()) std::memcpy(pages.at(offset), bytes.data(), bytes.size());
  }

  // A frame of the channel level with nonsense in it: no frame at all for the other
  // level, and refused at its own unless the bytes happen to mean something.
  void SendChannelNonsense() {
    static constexpr std::array<uint32_t, 4> kNumbers = {0x51, 0x54, 0x55, 0x50};
    doubtful_ = true;
    vmm_.ExpectAnything();
    vmm_.Send(0x564C0000 | kNumbers[input_.Below(4)], input_.Bytes(input_.U8()), false);
  }

  void SendAnything() {
    doubtful_ = true;
    vmm_.ExpectAnything();
    const uint32_t number = input_.U8();
    const auto flags = static_cast<uint16_t>(input_.OneIn(4) ? input_.U8() : input_.U8() % 6);
    std::vector<int> descriptors(input_.Below(8) == 0 ? input_.Below(6) : 0, Rings().fd());
    std::vector<std::byte> frame =
        FrameBytes(0x564C0000 | number, flags, static_cast<uint16_t>(descriptors.size()),
                   input_.U8(), input_.Bytes(input_.U8()));
    const uint8_t mangling = input_.U8();
    if (mangling < 64) frame[input_.U8() % frame.size()] ^= static_cast<std::byte>(mangling);
    if (mangling > 200) frame.resize(input_.U8() % frame.size());
    vmm_.SendRaw(frame, descriptors);
  }

  void BreakARule() {
    broken_ = true;
    std::vector<std::byte> frame = FrameBytes(0x564C0005, 2, 0, vmm_.next_seq(), {});
    std::vector<int> descriptors;
    switch (input_.Below(6)) {
      case 0:
        frame[2] = std::byte{0x4D};  // not the link's magic
        break;
      case 1:
        frame[0] = std::byte{0x33};  // POST_ACK is the server's
        break;
      case 2:
        frame[12] = std::byte{1};  // reserved
        break;
      case 3:
        descriptors = {event_.get()};  // unannounced
        break;
      case 4:
        frame[9] = std::byte{0x10};  // more than a frame holds
        break;
      default:
        frame[4] = std::byte{3};  // REPLY and NEED_ACK
    }
    vmm_.ExpectAnything();
    vmm_.SendRaw(frame, descriptors);
  }

  FuzzInput& input_;
  const Form form_;
  Vmm vmm_;
  UniqueFd event_{::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
  bool greeted_ = false;
  bool broken_ = false;    // a rule was broken: the connection has to end
  bool doubtful_ = false;  // it may
  bool paused_ = false;
  uint64_t posts_sent_ = 0;
  uint64_t posts_dropped_ = 0;  // up to this one
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  constexpr std::array<Form, 4> kForms = {Form::kDirect, Form::kMediated, Form::kChannel,
                                          Form::kChannel};
  FuzzInput input(data, size);
  const uint8_t options = input.U8();
  LinkFuzzer(input, kForms[options / 4 % 4], options).Run();
  ServeNextConnection(kForms[options / 16 % 4]);
  return 0;
}

}  // namespace vmbfs::hyperv
