// Statements 53 to 58: the rings, byte by byte.

#include <algorithm>
#include <random>
#include <string>

#include "absl/strings/str_cat.h"
#include "tests/conformance/imc_client.h"
#include "tests/conformance/statement.h"

namespace vmbfs::conformance {
namespace {

// What a packet has around the path of a file info request: descriptor, pipe
// and vmbfs header, trailer.
constexpr uint32_t kInfoOverhead = 16 + 8 + 8 + 8;
// With an answer of this many bytes in a ring of 16 KiB no largest one fits.
constexpr uint64_t kBlockingFileBytes = 8192;

// The request for the hive's size in a packet of `total` ring bytes.
Bytes InfoOfSize(uint32_t total) {
  return PipeMessage(kPipeData, InfoRequest(kHive), total - 16 - kTrailerBytes);
}

void IndicesAtOpenAreHonoured(const Bench& bench, Verdict& verdict) {
  RawGuest guest(bench.options, verdict);
  guest.Connect();
  for (const uint32_t start : {8U, 4096U, 16'344U, 16'376U}) {
    RawChannel channel(guest, guest.Imc(), {.start_index = start});
    channel.LeaveUnread(start == 8 ? 0 : 48);
    channel.Put(PipeMessage(kPipeData, VersionRequest()));
    channel.Put(PipeMessage(kPipeData, InfoRequest(kHive)));
    channel.Publish();  // and no signal: nobody listens yet
    channel.Create();
    channel.Open();
    for (const uint32_t type : {2U, 4U}) {
      const Bytes answer = channel.Receive(guest.deadline()).value_or(Bytes());
      verdict.Expect(Get32(answer, 0) == type && Get32(answer, 8) == 0, "rings that begin at ",
                     start, ", answer of type ", type, ": ", ToHex(answer));
    }
    channel.Close();
    channel.TearDown();
  }
}

// A path of `units` that names nothing, in pieces that are not too long.
std::u16string LongPath(size_t units) {
  std::u16string path(units, u'x');
  for (size_t index = 0; index < units; index += 100) path[index] = u'\\';
  return path;
}

// Puts one request and takes its answer.
Bytes Ask(RawGuest& guest, RawChannel& channel, const Bytes& packet) {
  channel.Send(packet);
  std::optional<Bytes> answer = channel.Receive(guest.deadline());
  guest.verdict().Expect(answer.has_value(), "no answer to a packet of ", packet.size() + 8,
                         " ring bytes");
  return answer.value_or(Bytes());
}

// Moves `in` and `out` of guest to host to `offset`.
void MoveTo(RawGuest& guest, RawChannel& channel, uint32_t offset) {
  const uint32_t size = channel.to_host().size();
  while (guest.verdict().open() && channel.put_index() != offset) {
    const uint32_t distance = (offset + size - channel.put_index()) % size;
    const bool fits = distance >= 56 && distance <= size - 8;
    Ask(guest, channel, InfoOfSize(fits ? distance : 1024));
  }
}

void AllPacketSizesPass(const Bench& bench, Verdict& verdict) {
  {  // Paths of every length, to the largest packet of a ring of 12 KiB.
    ReadyImc imc(bench.options, verdict, {.to_host_pages = 4});
    imc.channel.Send(PipeMessage(5, {}));  // 32 bytes: no data, and to be ignored
    const uint32_t last = imc.channel.to_host().size() - 8;
    for (uint32_t total = kInfoOverhead; total <= last && verdict.open(); total += 8) {
      const size_t units = (total - kInfoOverhead) / 2;
      const FileInfo info = GetInfo(imc.guest, imc.channel, LongPath(units));
      const uint32_t expected = units == 0 ? kSuccess : units <= 4096 ? kNotFound : kError;
      verdict.Expect(info.status == expected, "packet of ", total, " bytes: status ", info.status);
    }
  }
  for (const size_t pages : {2, 5}) {  // room behind the data, to the largest
    ReadyImc imc(bench.options, verdict, {.to_host_pages = pages});
    const uint32_t last = imc.channel.to_host().size() - 8;
    for (uint32_t total = 56; total <= last && verdict.open(); total += pages == 2 ? 8 : 496) {
      const Bytes answer = Ask(imc.guest, imc.channel, InfoOfSize(total));
      verdict.Expect(Get32(answer, 0) == 4 && Get32(answer, 8) == 0, ToHex(answer));
    }
    const Bytes answer = Ask(imc.guest, imc.channel, InfoOfSize(last));
    verdict.Expect(Get32(answer, 0) == 4 && Get32(answer, 8) == 0, ToHex(answer));
  }
  // A long way to the hive, wrapped at every offset of its packet.
  ReadyImc imc(bench.options, verdict, {.to_host_pages = 2});
  std::u16string path = u"\\";
  while (path.size() < 485) path += u".\\";
  const Bytes packet = PipeMessage(kPipeData, InfoRequest(path.append(kHive)));
  const auto total = static_cast<uint32_t>(packet.size() + kTrailerBytes);
  const uint32_t size = imc.channel.to_host().size();
  for (uint32_t before = 8; before <= total && verdict.open(); before += 8) {
    MoveTo(imc.guest, imc.channel, size - before);
    const Bytes answer = Ask(imc.guest, imc.channel, packet);
    verdict.Expect(Get32(answer, 0) == 4 && Get32(answer, 8) == 0, "a packet wrapped ", before,
                   " bytes before the end: ", ToHex(answer));
  }
}

// RawChannel::Take looks at every descriptor and trailer; here they come at
// many offsets, wrapped and not.
void HostPacketsAreWellFormed(const Bench& bench, Verdict& verdict) {
  constexpr int kReads = 2'000;
  ReadyImc imc(bench.options, verdict);
  const uint64_t file_bytes = GetInfo(imc.guest, imc.channel).bytes;
  const ReadResult whole = ReadFile(imc.guest, imc.channel, kReadBytesMax, 0);
  if (!verdict.open() || file_bytes == 0) return;
  std::mt19937 random(55);
  for (int count = 0; count < kReads && verdict.open(); ++count) {
    const auto offset = static_cast<uint32_t>(random() % whole.data.size());
    const uint32_t bytes = 1 + static_cast<uint32_t>(random() % (whole.data.size() - offset));
    const ReadResult read = ReadFile(imc.guest, imc.channel, bytes, offset);
    verdict.Expect(std::ranges::equal(read.data, ByteView(whole.data).subspan(offset, bytes)),
                   "other bytes at offset ", offset);
  }
}

// A channel whose host waits for room to answer: every answer that is taken
// lets it consume the next request.
struct BlockedHost {
  BlockedHost(const Bench& bench, Verdict& verdict)
      : imc(bench.options, verdict, {.to_host_pages = 2}) {
    if (GetInfo(imc.guest, imc.channel).bytes < kBlockingFileBytes) {
      verdict.Skip("needs a file of 8 KiB or more");
    }
    imc.guest.Idle(kAfterOpen);
  }

  void Publish(int requests) {
    for (int count = 0; count < requests; ++count) {
      imc.channel.Put(PipeMessage(kPipeData, ReadRequest(kReadBytesMax, 0)));
    }
    imc.channel.Publish();
    imc.channel.Signal();
    AwaitBlocked();
  }
  // Waits until the host has answered and asks for room.
  void AwaitBlocked() {
    imc.guest.Until([&] {
      return imc.channel.HasPacket() && imc.channel.from_host().Load(kPendingSendSize) != 0;
    });
  }
  // Waits until the host consumed more, or there is no more.
  void AwaitStep(uint32_t free) {
    imc.guest.Until(
        [&] { return FreeBytes() != free || free == imc.channel.to_host().size() - 8; });
    imc.guest.Idle(Milliseconds(10));
  }
  uint32_t out() { return imc.channel.to_host().Load(kOut); }
  uint32_t FreeBytes() {
    RawRing& ring = imc.channel.to_host();
    return ring.size() - 8 - ring.Used(imc.channel.put_index(), out());
  }

  ReadyImc imc;
};

constexpr int kRequests = 8;

// Lets the host consume request by request until all are gone. A signal comes
// with the step that crosses `pending`, and with no other.
void ExpectSignalOnCrossing(BlockedHost& host, uint32_t pending) {
  RawGuest& guest = host.imc.guest;
  RawChannel& channel = host.imc.channel;
  Verdict& verdict = guest.verdict();
  const uint32_t flag = channel.offer().channel_id();
  channel.to_host().Store(kPendingSendSize, pending);
  int crossings = 0;
  for (int step = 0; step <= kRequests && verdict.open(); ++step) {
    const uint32_t free = host.FreeBytes();
    if (!channel.TakeAndFree()) break;
    host.AwaitStep(free);
    const uint32_t wanted = pending & ~7U;
    const bool crossed = wanted != 0 && free < wanted && host.FreeBytes() >= wanted;
    if (crossed) ++crossings;
    const bool signalled =
        crossed ? guest.AwaitFlag(0, flag, guest.deadline()) : guest.TakeFlag(0, flag);
    verdict.Expect(signalled == crossed, "pending send size ", pending, ", free bytes from ", free,
                   " to ", host.FreeBytes(), signalled ? ": a signal" : ": no signal");
  }
  verdict.Expect(host.FreeBytes() == channel.to_host().size() - 8, "requests were left unread");
  verdict.Expect(crossings == (pending == 0 ? 0 : 1), "pending send size ", pending,
                 " was crossed ", crossings, " times");
}

void PendingSendSizeIsSignalled(const Bench& bench, Verdict& verdict) {
  BlockedHost host(bench, verdict);
  // No signal for answers: what comes is about room.
  host.imc.channel.from_host().Store(kInterruptMask, 1);
  const uint32_t size = host.imc.channel.to_host().size();
  constexpr uint32_t request = 72;  // ring bytes of each
  const uint32_t flag = host.imc.channel.offer().channel_id();
  for (const uint32_t pending : {0U, size - 1, size - 8, size - 8 - 3 * request,
                                 size - 8 - 3 * request + 4, size - 8 - 4 * request + 8}) {
    host.imc.guest.TakeFlag(0, flag);
    host.Publish(kRequests);
    verdict.Expect(!host.imc.guest.FlagIsSet(0, flag),
                   "a signal, though mask is 1 and no pending send size is set");
    ExpectSignalOnCrossing(host, pending);
    host.imc.channel.to_host().Store(kPendingSendSize, 0);
  }
}

void AFullReplyRingIsWaitedFor(const Bench& bench, Verdict& verdict) {
  BlockedHost host(bench, verdict);
  RawChannel& channel = host.imc.channel;
  RawRing& replies = channel.from_host();
  verdict.Expect(replies.Load(kFeatureBits) == 1,
                 "feature bits of host to guest: ", replies.Load(kFeatureBits));
  // Behind the last answer no request waits for room.
  constexpr int kBlocked = 5;
  host.Publish(kBlocked + 1);
  for (int answer = 0; answer < kBlocked && verdict.open(); ++answer) {
    const uint32_t in = replies.Load(kIn);
    const uint32_t pending = replies.Load(kPendingSendSize);
    verdict.Expect(pending > 0 && pending <= replies.size() - 8, "the ring is full and its ",
                   "pending send size is ", pending);
    // Not freed: signals alone bring nothing.
    for (int count = 0; count < 10; ++count) channel.Signal();
    host.imc.guest.Idle(Milliseconds(100));
    verdict.Expect(replies.Load(kIn) == in, "an answer was written into a full ring");
    verdict.Expect(channel.Take().has_value(), "answer ", answer, " is missing");
    const uint32_t room = replies.size() - 8;
    verdict.Expect(channel.Free() == (room >= pending), "freeing all crosses what is pending");
    channel.Signal();
    if (answer < kBlocked - 1) host.AwaitBlocked();
  }
  host.imc.guest.Idle(Milliseconds(50));
  verdict.Expect(channel.Take().has_value(), "answer ", kBlocked, " is missing");
  (void)channel.Free();
  channel.Signal();
  host.imc.guest.Idle(Milliseconds(50));
  verdict.Expect(!channel.Take().has_value(), "more answers than requests");
  host.imc.ExpectServed();
}

}  // namespace

std::vector<Statement> RingStatements() {
  return {
      {53, "indices at open are honoured, and packets that wait", IndicesAtOpenAreHonoured},
      {54, "packets of all sizes pass, wrapped at every offset", AllPacketSizesPass},
      {55, "host packets: type 6, offset 2, flags 0, trailer with their offset",
       HostPacketsAreWellFormed},
      {56, "the host signals if mask is 0 and the ring was empty", RunsInProcess},
      {57, "a pending send size is signalled when it is crossed, and only then",
       PendingSendSizeIsSignalled},
      {58, "a full reply ring is waited for with a pending send size", AFullReplyRingIsWaitedFor},
  };
}

}  // namespace vmbfs::conformance
