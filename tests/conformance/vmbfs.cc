// Statements 67 to 70: vmbfs, and a client that never stops.

#include <algorithm>
#include <random>
#include <string>
#include <thread>

#include "absl/strings/str_cat.h"
#include "tests/conformance/imc_client.h"
#include "tests/conformance/statement.h"

namespace vmbfs::conformance {
namespace {

constexpr size_t kInfoResponseBytes = 24;
constexpr size_t kReadResponseBytes = 12;
constexpr size_t kRdmaResponseBytes = 16;

// The whole file in reads of `count`, at most `bytes_max` of it.
Bytes ReadWhole(ReadyImc& imc, uint32_t count, size_t bytes_max) {
  Bytes file;
  while (imc.guest.verdict().open() && file.size() < bytes_max) {
    const ReadResult read = ReadFile(imc.guest, imc.channel, count, file.size());
    if (read.status == kEndOfFile) break;
    imc.guest.verdict().Expect(read.status == kSuccess, "read: status ", read.status);
    Append(file, read.data);
  }
  file.resize(std::min(file.size(), bytes_max));
  return file;
}

void ResponsesHaveTheirSizes(const Bench& bench, Verdict& verdict) {
  ReadyImc imc(bench.options, verdict);
  for (const uint32_t version : {0x00020000U, 0U, kVersionWin10}) {
    const Bytes answer = imc.channel.Exchange(VersionRequest(version));
    verdict.Expect(answer.size() == 12 && Get32(answer, 0) == 2 &&
                       Get32(answer, 8) == (version == kVersionWin10 ? 0 : 1),
                   "version response: ", ToHex(answer));
  }
  const uint64_t bytes = GetInfo(imc.guest, imc.channel).bytes;
  // ReadFile checks every size, and that success brings something.
  const Bytes whole = ReadWhole(imc, kReadBytesMax, 1 << 18);
  verdict.Expect(whole.size() == std::min<uint64_t>(bytes, 1 << 18), "the file info says ", bytes,
                 " bytes; ", whole.size(), " were read");
  for (const uint32_t count : {1U, 7U, 4096U, 12'275U}) {
    const size_t part = std::min<size_t>(whole.size(), count * 20);
    const Bytes again = ReadWhole(imc, count, part);
    verdict.Expect(std::ranges::equal(again, ByteView(whole).first(part)), "reads of ", count,
                   " bytes got other bytes");
  }
  for (const uint64_t offset : {uint64_t{0}, bytes, bytes + 1}) {
    const ReadResult none = ReadFile(imc.guest, imc.channel, 0, offset);
    verdict.Expect(none.status == kSuccess, "read of 0 bytes: status ", none.status);
  }
}

void TheEndOfTheFileIsExact(const Bench& bench, Verdict& verdict) {
  ReadyImc imc(bench.options, verdict);
  const uint64_t bytes = GetInfo(imc.guest, imc.channel).bytes;
  if (!verdict.Expect(bytes > 0, "imc.hiv is empty")) return;
  for (const uint64_t left : {uint64_t{1}, uint64_t{2}, uint64_t{8}, bytes / 2, bytes}) {
    if (left == 0 || left > bytes || left >= kReadBytesMax) continue;
    for (const uint32_t count : {static_cast<uint32_t>(left) + 1, kReadBytesMax}) {
      const ReadResult tail = ReadFile(imc.guest, imc.channel, count, bytes - left);
      verdict.Expect(tail.status == kSuccess && tail.data.size() == left, count, " bytes with ",
                     left, " left: status ", tail.status, ", ", tail.data.size(), " bytes");
    }
  }
  for (const uint64_t offset :
       {bytes, bytes + 1, bytes + 4096, uint64_t{1} << 32, uint64_t{1} << 63, ~uint64_t{0}}) {
    const ReadResult read = ReadFile(imc.guest, imc.channel, 100, offset);
    verdict.Expect(read.status == kEndOfFile, "read at ", offset, " of ", bytes, ": status ",
                   read.status);
  }
  const uint32_t missing = ReadFile(imc.guest, imc.channel, 10, 0, u"missing.hiv").status;
  verdict.Expect(missing == kNotFound, "read of a missing file: status ", missing);
  const uint32_t no_info = GetInfo(imc.guest, imc.channel, u"missing.hiv").status;
  verdict.Expect(no_info == kNotFound, "info of a missing file: status ", no_info);
  for (const uint32_t count : {kReadBytesMax + 1, 0x10000U, 0xFFFFFFFFU}) {
    const ReadResult read = ReadFile(imc.guest, imc.channel, count, 0);
    verdict.Expect(read.status == kError, "read of ", count, " bytes: status ", read.status);
  }
  imc.ExpectServed();
}

void PathsAreResolved(const Bench& bench, Verdict& verdict) {
  using std::string_view_literals::operator""sv;
  ReadyImc imc(bench.options, verdict);
  const auto expect = [&](std::u16string_view path, uint32_t status, bool directory) {
    const FileInfo info = GetInfo(imc.guest, imc.channel, path);
    verdict.Expect(
        info.status == status && info.directory == directory && (!directory || info.bytes == 0),
        "path ", ToHex(PathBytes(path)), ": status ", info.status);
  };
  for (const std::u16string_view path :
       {u"imc.hiv"sv, u"\\imc.hiv"sv, u"/imc.hiv"sv, u"\\imc.hiv\0"sv, u"imc.hiv\0"sv, u"IMC.HIV"sv,
        u"\\\\imc.hiv"sv, u".\\imc.hiv"sv, u"\\.\\.\\imc.hiv"sv, u"a\\..\\imc.hiv"sv,
        u"/a/b/../../imc.hiv"sv, u"a/.\\..//imc.hiv"sv, u"\\imc.hiv\\..\\imc.hiv"sv}) {
    expect(path, kSuccess, false);
    verdict.Expect(ReadFile(imc.guest, imc.channel, 1, 0, path).data.size() == 1, "no byte of ",
                   ToHex(PathBytes(path)));
  }
  for (const std::u16string_view path : {u"..\\imc.hiv"sv, u"\\..\\imc.hiv"sv, u".."sv,
                                         u"a\\..\\..\\imc.hiv"sv, u"imc"sv, u"\\a\\imc.hiv"sv}) {
    expect(path, kNotFound, false);
    verdict.Expect(ReadFile(imc.guest, imc.channel, 1, 0, path).status == kNotFound, "a byte of ",
                   ToHex(PathBytes(path)));
  }
  for (const std::u16string_view path : {u""sv, u"\\"sv, u"/"sv, u"."sv, u"\\.\\"sv}) {
    expect(path, kSuccess, true);
    const uint32_t status = ReadFile(imc.guest, imc.channel, 1, 0, path).status;
    verdict.Expect(status == kError, "read of a directory: status ", status);
  }
  AgreeOnVersion(imc.guest, imc.channel);
  imc.ExpectServed();
}

// Every way a path may be broken, with `before` in front of it, is answered
// with status 3 and the response's exact size.
void ExpectBadPathsRefused(ReadyImc& imc, const Bytes& before, uint32_t type, size_t bytes) {
  std::u16string long_piece = u"\\";
  long_piece.append(256, u'x');
  std::u16string long_path;
  while (long_path.size() <= 4096) long_path += u"\\abc";
  Bytes odd = PathBytes(kHive);
  odd.push_back(std::byte{'x'});
  const std::u16string inner_nul = {u'i', u'\0', u'm'};
  const std::u16string half_pair = {u'i', char16_t{0xD800}, u'm'};
  const std::u16string second_half = {char16_t{0xDC00}};
  for (const Bytes& path : {odd, PathBytes(inner_nul), PathBytes(half_pair), PathBytes(second_half),
                            PathBytes(long_piece), PathBytes(long_path)}) {
    Bytes message = before;
    Append(message, path);
    const Bytes answer = imc.channel.Exchange(message);
    imc.guest.verdict().Expect(
        answer.size() == bytes && Get32(answer, 0) == type && Get32(answer, 8) == kError, "path ",
        ToHex(path), ": ", ToHex(answer));
  }
}

void ExpectStatus3(ReadyImc& imc, const Bytes& message, uint32_t type, size_t bytes) {
  const Bytes answer = imc.channel.Exchange(message);
  const uint32_t status = type == 2 ? 1 : kError;
  imc.guest.verdict().Expect(
      answer.size() == bytes && Get32(answer, 0) == type && Get32(answer, 8) == status &&
          AllZero(ByteView(answer).subspan(std::min<size_t>(answer.size(), 12))),
      "broken request ", ToHex(message), ": ", ToHex(answer));
}

void BrokenRequestsAreAnswered(ReadyImc& imc) {
  ExpectBadPathsRefused(imc, Message(3), 4, kInfoResponseBytes);
  ExpectBadPathsRefused(imc, ReadRequest(1, 0, u""), 6, kReadResponseBytes);
  ExpectBadPathsRefused(imc, RdmaRequest({}, u""), 8, kRdmaResponseBytes);
  for (size_t size = 8; size < 20; ++size) ExpectStatus3(imc, Message(5, size), 6, 12);
  for (size_t size = 8; size < 32; ++size) ExpectStatus3(imc, Message(7, size), 8, 16);
  for (size_t size = 8; size < 12; ++size) ExpectStatus3(imc, Message(1, size), 2, 12);
  ExpectStatus3(imc, RdmaRequest({.count = 1}), 8, kRdmaResponseBytes);
  imc.ExpectServed();
}

void FaultsEndService(ReadyImc& imc) {
  for (size_t size = 0; size < 8; ++size) {
    Bytes message = Message(1);
    message.resize(size);
    imc.channel.Send(PipeMessage(kPipeData, message));
    imc.ExpectStopped(absl::StrCat("a message of ", size, " bytes"));
  }
  for (const uint32_t type : {0U, 2U, 4U, 6U, 8U, 9U, 0xFFFFFFFFU}) {
    imc.channel.Send(PipeMessage(kPipeData, Message(type, 40)));
    imc.ExpectStopped(absl::StrCat("vmbfs message type ", type));
  }
  Bytes too_long = InfoRequest(u"");
  too_long.resize(kVmbfsBytesMax + 1, std::byte{'x'});
  imc.channel.Send(PipeMessage(kPipeData, too_long));
  imc.ExpectStopped("a message of more than 12288 bytes");
}

void PathsAndBrokenRequests(const Bench& bench, Verdict& verdict) {
  PathsAreResolved(bench, verdict);
  if (!verdict.open()) return;
  ReadyImc imc(bench.options, verdict);
  BrokenRequestsAreAnswered(imc);
  FaultsEndService(imc);
  // Before a version is agreed, each request gets its own response.
  imc.OpenAnew();
  ExpectStatus3(imc, InfoRequest(kHive), 4, kInfoResponseBytes);
  ExpectStatus3(imc, ReadRequest(1, 0), 6, kReadResponseBytes);
  ExpectStatus3(imc, RdmaRequest({.count = 1}), 8, kRdmaResponseBytes);
  ExpectStatus3(imc, VersionRequest(7), 2, 12);
  ExpectStatus3(imc, InfoRequest(kHive), 4, kInfoResponseBytes);
  AgreeOnVersion(imc.guest, imc.channel);
  imc.ExpectServed();
}

// Sleeps by the rules only, so that one signal too few is the end.
void ManyReadsNeverStall(const Bench& bench, Verdict& verdict) {
  constexpr int kReads = 10'000;
  constexpr int kAhead = 4;  // requests sent before the first answer is read
  ReadyImc imc(bench.options, verdict);
  const Bytes file = ReadWhole(imc, kReadBytesMax, 1 << 18);
  if (!verdict.Expect(!file.empty(), "imc.hiv is empty")) return;
  const auto count = static_cast<uint32_t>(std::min<size_t>(file.size(), kReadBytesMax));
  if (count < kReadBytesMax) verdict.Note(absl::StrCat("the file allows reads of ", count));
  std::mt19937 random(70);
  const auto pause = [&](unsigned one_in) {
    if (random() % one_in == 0) {
      std::this_thread::sleep_for(std::chrono::microseconds(random() % 1000));
    }
  };
  const auto offset_of = [&](int index) {
    return (static_cast<size_t>(index) * 7919) % (file.size() - count + 1);
  };
  int sent = 0;
  for (int received = 0; received < kReads && verdict.open(); ++received) {
    for (; sent < kReads && sent < received + 1 + static_cast<int>(random() % kAhead); ++sent) {
      imc.channel.Send(PipeMessage(kPipeData, ReadRequest(count, offset_of(sent))));
      pause(16);
    }
    pause(6);
    const auto answer = imc.channel.Receive(imc.guest.deadline());
    if (!verdict.Expect(answer.has_value(), "stalled after ", received, " reads")) return;
    const ReadResult read = ParseReadResponse(verdict, *answer, count);
    verdict.Expect(
        std::ranges::equal(read.data, ByteView(file).subspan(offset_of(received), count)),
        "other bytes in read ", received);
  }
}

}  // namespace

std::vector<Statement> VmbfsStatements() {
  return {
      {67, "vmbfs responses have their exact sizes, and never success without data",
       ResponsesHaveTheirSizes},
      {68, "reads over the tail are short, behind it end of file; too large ones are refused",
       TheEndOfTheFileIsExact},
      {69, "paths are resolved; broken requests are answered as vmbfs.md says",
       PathsAndBrokenRequests},
      {70, "10,000 largest reads through 16 KiB rings never stall", ManyReadsNeverStall},
  };
}

}  // namespace vmbfs::conformance
