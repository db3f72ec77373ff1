// Statements 53 to 61: the rings, byte by byte.

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <functional>
#include <random>
#include <string>

#include "absl/strings/str_cat.h"
#include "tests/conformance/imc_client.h"
#include "tests/conformance/statement.h"

namespace vmbfs::conformance {
namespace {

constexpr uint32_t kPage = 4096;
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
  host.Publish(5);
  for (int answer = 0; answer < 5 && verdict.open(); ++answer) {
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
    if (answer < 4) host.AwaitBlocked();
  }
  host.imc.guest.Idle(Milliseconds(50));
  verdict.Expect(!channel.Take().has_value(), "more answers than requests");
  host.imc.ExpectServed();
}

// User and system time of a process so far, in clock ticks; nullopt where the
// system does not tell.
std::optional<uint64_t> CpuTicks(pid_t process) {
  std::FILE* const file = std::fopen(absl::StrCat("/proc/", process, "/stat").c_str(), "r");
  if (file == nullptr) return std::nullopt;
  unsigned long long user = 0;
  unsigned long long system = 0;
  const int fields = std::fscanf(
      file, "%*d (%*[^)]) %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu", &user, &system);
  std::fclose(file);
  if (fields != 2) return std::nullopt;
  return user + system;
}

// We spin for a while: on a busy machine, what we get of a processor is what a
// server that spins would get.
void ExpectIdle(RawGuest& guest, absl::string_view when) {
  constexpr Milliseconds kWatched{1'000};
  constexpr uint64_t kTicksAlways = 5;  // the server's other business
  const auto server = guest.server_process();
  const auto server_before = server ? CpuTicks(*server) : std::nullopt;
  const auto own_before = CpuTicks(getpid());
  if (!guest.verdict().open()) return;
  const Deadline until = std::chrono::steady_clock::now() + kWatched;
  while (std::chrono::steady_clock::now() < until) {
  }
  const auto server_after = server ? CpuTicks(*server) : std::nullopt;
  const auto own_after = CpuTicks(getpid());
  if (!server_before || !server_after || !own_before || !own_after) {
    return guest.verdict().Note("the server's processor time is unknown");
  }
  const uint64_t used = *server_after - *server_before;
  const uint64_t possible = *own_after - *own_before;
  guest.verdict().Expect(used <= kTicksAlways + possible / 2, "the server used ", used,
                         " ticks of processor time ", when, "; who never sleeps gets ", possible);
}

void SpuriousSignalsAreHarmless(const Bench& bench, Verdict& verdict) {
  constexpr int kSignals = 20'000;
  ReadyImc imc(bench.options, verdict);
  imc.guest.Idle(kAfterOpen);
  imc.guest.TakeFlag(0, imc.channel.offer().channel_id());
  const uint32_t in = imc.channel.from_host().Load(kIn);
  const uint32_t out = imc.channel.to_host().Load(kOut);
  const uint64_t interrupts = imc.guest.Interrupts(0);
  for (int count = 0; count < kSignals; ++count) {
    imc.channel.Signal();
    if (count % 16 == 0) imc.guest.SignalByFrame(imc.channel.offer().connection_id());
  }
  imc.guest.Idle(Milliseconds(200));
  verdict.Expect(imc.channel.from_host().Load(kIn) == in && imc.channel.to_host().Load(kOut) == out,
                 "the rings moved");
  verdict.Expect(imc.guest.Interrupts(0) == interrupts && !imc.guest.AnyFlagSet(),
                 "the host signalled back");
  ExpectIdle(imc.guest, "after spurious signals");
  imc.ExpectServed();
  // Requests it has no room to answer make no busy loop either.
  for (int count = 0; count < 8; ++count) {
    imc.channel.Send(PipeMessage(kPipeData, ReadRequest(kReadBytesMax, 0)));
  }
  ExpectIdle(imc.guest, "while its reply ring is full");
  for (int count = 0; count < 8; ++count) {
    verdict.Expect(imc.channel.Receive(imc.guest.deadline()).has_value(), "an answer is missing");
  }
}

struct Corruption {
  std::string what;
  std::function<void(RawChannel&)> commit;
  // A server may have made sure of room for one answer before.
  int answers_max = 0;
};

// A request whose descriptor is not what it should be.
Corruption BadDescriptor(std::string what, uint32_t type, uint32_t offset, uint32_t length,
                         uint32_t flags) {
  return {std::move(what), [=](RawChannel& channel) {
            Bytes packet = PipeMessage(kPipeData, InfoRequest(kHive));
            Put(packet, 0, 2, type);
            Put(packet, 2, 2, offset);
            Put(packet, 4, 2, length);
            Put(packet, 6, 2, flags);
            channel.Put(packet);
            channel.Publish();
          }};
}

std::vector<Corruption> Corruptions() {
  std::vector<Corruption> all;
  for (const uint32_t index : {1U, 4U, 4 * kPage, 4 * kPage + 8, 0x7FFFFFF8U, 0xFFFFFFF8U}) {
    all.push_back({absl::StrCat("`in` of guest to host ", index),
                   [index](RawChannel& channel) { channel.to_host().Store(kIn, index); }});
    all.push_back({absl::StrCat("`out` of host to guest ", index),
                   [index](RawChannel& channel) {
                     channel.from_host().Store(kOut, index);
                     channel.Put(PipeMessage(kPipeData, InfoRequest(kHive)));
                     channel.Put(PipeMessage(kPipeData, InfoRequest(kHive)));
                     channel.Publish();
                   },
                   1});
  }
  all.push_back({"less than a packet", [](RawChannel& channel) {
                   channel.to_host().Store(kIn, channel.put_index() + 16);
                 }});
  // The true packet has 6 units and a trailer.
  const uint32_t good = 6;
  all.push_back(BadDescriptor("length 0", 6, 2, 0, 0));
  all.push_back(BadDescriptor("length 1", 6, 2, 1, 0));
  all.push_back(BadDescriptor("length without room for the trailer", 6, 2, good + 1, 0));
  all.push_back(BadDescriptor("length beyond what is there", 6, 2, good + 2, 0));
  all.push_back(BadDescriptor("length 65535", 6, 2, 0xFFFF, 0));
  all.push_back(BadDescriptor("data offset 0", 6, 0, good, 0));
  all.push_back(BadDescriptor("data offset 1", 6, 1, good, 0));
  all.push_back(BadDescriptor("data offset beyond the length", 6, good + 1, good, 0));
  for (const uint32_t flags : {2U, 0x80U, 0x8000U, 0xFFFFU}) {
    all.push_back(BadDescriptor(absl::StrCat("flags ", flags), 6, 2, good, flags));
  }
  for (const uint32_t type : {0U, 1U, 5U, 7U, 8U, 9U, 0xAU, 0xCU, 0xDU, 0xFFFFU}) {
    all.push_back(BadDescriptor(absl::StrCat("type ", type), type, 2, good, 0));
  }
  all.push_back(BadDescriptor("GPA direct with a header", 9, 4, good, 0));
  all.push_back(BadDescriptor("transfer pages with a header", 7, 4, good, 0));
  return all;
}

void CorruptionStopsTheChannelOnly(const Bench& bench, Verdict& verdict) {
  ReadyImc imc(bench.options, verdict);
  RawGuest& guest = imc.guest;
  const std::optional<Offer> boot = guest.Boot();
  if (!boot) verdict.Note("boot is not offered: no second channel was watched");
  std::optional<RawChannel> other;
  if (boot && verdict.open()) {
    other.emplace(guest, *boot);
    other->Create();
    other->Open();
    AgreeOnVersion(guest, *other);
  }
  for (const Corruption& corruption : Corruptions()) {
    corruption.commit(imc.channel);
    imc.channel.Signal();
    guest.Idle(Milliseconds(40));
    for (int answer = 0; answer < corruption.answers_max; ++answer) imc.channel.Take();
    verdict.Expect(imc.channel.IsStopped(Milliseconds(20)), "an answer after ", corruption.what);
    // It stays stopped, also when all is well again.
    imc.channel.to_host().Store(kIn, imc.channel.to_host().Load(kOut) & ~7U);
    verdict.Expect(imc.channel.IsStopped(Milliseconds(20)), "it went on after ", corruption.what);
    if (other) {
      verdict.Expect(GetInfo(guest, *other, u"\\").status == kSuccess,
                     "another channel was disturbed by ", corruption.what);
    }
    imc.Reopen();
    if (!verdict.open()) return verdict.Note(absl::StrCat("after ", corruption.what));
  }
  // The host's own words are its own: what is written there is not believed.
  imc.channel.to_host().Store(kOut, 0xFFFFFFFF);
  imc.channel.from_host().Store(kIn, 0xFFFFFFFF);
  imc.channel.Signal();
  imc.Reopen();
  imc.channel.to_host().Store(kIn, 5);
  imc.channel.Signal();
  guest.Idle(Milliseconds(50));
  guest.Unload();
  guest.Connect();
}

void RunsInProcess(const Bench&, Verdict& verdict) { verdict.Skip("runs in the in-process form"); }

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
      {59, "spurious signals cause no work and no busy loop", SpuriousSignalsAreHarmless},
      {60, "a corrupt ring stops its channel and nothing else", CorruptionStopsTheChannelOnly},
      {61, "a guest that rewrites rings under the server is harmless", RunsInProcess},
  };
}

}  // namespace vmbfs::conformance
