// Row by row what shared/specs/vmbfs.md says a request gets.

#include "core/vmbfs/session.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <variant>

#include "absl/status/status.h"
#include "core/backing/memory_file.h"
#include "core/backing/single_file_backing.h"
#include "core/vmbfs/message_bytes.h"

namespace vmbfs {
namespace {

constexpr size_t kFileBytes = 20000;

class SessionTest : public testing::Test {
 protected:
  void AgreeOnVersion() { ASSERT_EQ(Answered(VersionBytes()), VersionAnswer(0)); }

  // The whole answer, with the data of a read.
  Bytes Answered(const Bytes& message) {
    const absl::StatusOr<Answer> answer = session_.Handle(message);
    if (!answer.ok()) {
      ADD_FAILURE() << answer.status();
      return {};
    }
    if (const Response* response = std::get_if<Response>(&*answer)) {
      return Bytes(response->bytes().begin(), response->bytes().end());
    }
    const FileRead& read = std::get<FileRead>(*answer);
    Bytes data(read.byte_count);
    EXPECT_EQ(read.file->ReadBlocking(read.offset, data).value(), read.byte_count);
    return ReadAnswerBytes(0, data);
  }

  absl::Status Fault(const Bytes& message) {
    const absl::StatusOr<Answer> answer = session_.Handle(message);
    EXPECT_FALSE(answer.ok());
    return answer.status();
  }

  static Bytes Content() {
    Bytes bytes(kFileBytes);
    for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(i * 7 + i / 256);
    return bytes;
  }
  static Bytes ContentRange(size_t offset, size_t count) {
    const Bytes content = Content();
    return Bytes(content.begin() + static_cast<ptrdiff_t>(offset),
                 content.begin() + static_cast<ptrdiff_t>(offset + count));
  }

  VmbfsDeviceStatus status_;
  Session session_{std::make_shared<SingleFileBacking>(
                       u"imc.hiv", std::make_shared<MemoryFile>(Content()), "test"),
                   0, status_};
};

// --- What the specification shows byte by byte (vmbus.md 6.3 and 6.5). ---

TEST_F(SessionTest, VersionExampleIsAnsweredByteForByte) {
  EXPECT_EQ(Answered(Hex("01000000 00000000 00000100")), Hex("02000000 00000000 00000000"));
}

TEST_F(SessionTest, InfoIsAnsweredByteForByte) {
  AgreeOnVersion();
  EXPECT_EQ(Answered(Hex("03000000 00000000 5c00 6900 6d00 6300 2e00 6800 6900 7600")),
            Hex("04000000 00000000 00000000 00000000 204e0000 00000000"));
}

TEST_F(SessionTest, ReadIsAnsweredByteForByte) {
  AgreeOnVersion();
  EXPECT_EQ(Answered(Hex("05000000 00000000 04000000 01000000 00000000"
                         "6900 6d00 6300 2e00 6800 6900 7600")),
            Hex("06000000 00000000 00000000 07 0e 15 1c"));
}

TEST_F(SessionTest, TheReservedFieldIsNotChecked) {
  EXPECT_EQ(Answered(Hex("01000000 ffffffff 00000100")), VersionAnswer(0));
}

// --- Order of talk. ---

TEST_F(SessionTest, AnUnsupportedVersionIsRefusedAndAnotherMayFollow) {
  for (const uint32_t version : {0u, 1u, 0x00010001u, 0x00020000u, 0xFFFFFFFFu}) {
    EXPECT_EQ(Answered(VersionBytes(version)), VersionAnswer(1));
  }
  EXPECT_FALSE(session_.ready());
  AgreeOnVersion();
  EXPECT_TRUE(session_.ready());
}

// --- The table: what a broken request gets. ---

struct BadPath {
  std::string name;
  Bytes bytes;
};

std::vector<BadPath> BadPaths() {
  return {
      {"odd length", Join({Utf16(u"imc.hiv"), Hex("00")})},
      {"NUL inside", Utf16(std::u16string_view(u"imc\0hiv", 7))},
      {"two NULs at the end", Utf16(std::u16string_view(u"imc.hiv\0\0", 9))},
      {"invalid UTF-16", Hex("00d8 6900")},
      {"over 4096 units", Utf16(std::u16string(4097, u'\\'))},
      {"a piece over 255 units", Utf16(std::u16string(256, u'x'))},
  };
}

TEST_F(SessionTest, AMalformedPathGetsTheMatchingResponseWithStatus3AndTheChannelGoesOn) {
  AgreeOnVersion();
  uint64_t bad_requests = 0;
  for (const BadPath& path : BadPaths()) {
    SCOPED_TRACE(path.name);
    EXPECT_EQ(Answered(Join({InfoBytes(u""), path.bytes})), InfoAnswer(3, 0, 0));
    EXPECT_EQ(Answered(Join({ReadBytes(10, 0, u""), path.bytes})), ReadAnswerBytes(3));
    EXPECT_EQ(Answered(Join({RdmaBytes(1, 10, 0, 0, u""), path.bytes})), RdmaAnswer(3, 0));
    bad_requests += 3;
    EXPECT_EQ(status_.bad_requests, bad_requests);
    EXPECT_FALSE(status_.last_bad_request.empty());
  }
  EXPECT_EQ(Answered(InfoBytes(u"imc.hiv")), InfoAnswer(0, 0, kFileBytes));
}

TEST_F(SessionTest, AReadOfMoreThan12276BytesGetsStatus3) {
  AgreeOnVersion();
  for (const uint32_t count : {12277u, 12288u, 0x7FFFFFFFu, 0xFFFFFFFFu}) {
    EXPECT_EQ(Answered(ReadBytes(count, 0, u"imc.hiv")), ReadAnswerBytes(3));
  }
  EXPECT_EQ(status_.last_bad_request,
            "read file: 4294967295 bytes asked for; at most 12276 fit into a response");
  EXPECT_EQ(Answered(ReadBytes(12276, 0, u"imc.hiv")), ReadAnswerBytes(0, ContentRange(0, 12276)));
}

TEST_F(SessionTest, AReadOfADirectoryGetsStatus3) {
  AgreeOnVersion();
  for (const uint32_t count : {0u, 1u, 12276u}) {
    EXPECT_EQ(Answered(ReadBytes(count, 0, u"\\")), ReadAnswerBytes(3));
  }
  EXPECT_EQ(status_.bad_requests, 3u);
}

TEST_F(SessionTest, AReadOfNoBytesSucceedsWhereTheFileExists) {
  AgreeOnVersion();
  for (const uint64_t offset : {uint64_t{0}, uint64_t{kFileBytes}, UINT64_MAX}) {
    EXPECT_EQ(Answered(ReadBytes(0, offset, u"imc.hiv")), ReadAnswerBytes(0));
  }
  EXPECT_EQ(Answered(ReadBytes(0, 0, u"other")), ReadAnswerBytes(1));
}

TEST_F(SessionTest, InfoOfTheRootIsADirectoryOfSize0) {
  AgreeOnVersion();
  for (const std::u16string_view path : {u"\\", u"/", u".", u""}) {
    EXPECT_EQ(Answered(InfoBytes(path)), InfoAnswer(0, 1, 0));
  }
  EXPECT_EQ(status_.bad_requests, 0u);
}

TEST_F(SessionTest, AVersionRequestTooShortToHoldAVersionGetsStatus1) {
  for (size_t size = 8; size < 12; ++size) {
    Bytes message = VersionBytes();
    message.resize(size);
    EXPECT_EQ(Answered(message), VersionAnswer(1)) << size;
  }
  EXPECT_FALSE(session_.ready());
  EXPECT_EQ(status_.bad_requests, 4u);
}

TEST_F(SessionTest, EveryTruncationOfReadFileIsRefused) {
  AgreeOnVersion();
  for (size_t size = 8; size < 20; ++size) {
    Bytes message = ReadBytes(10, 0, u"");
    message.resize(size);
    EXPECT_EQ(Answered(message), ReadAnswerBytes(3)) << size;
  }
  EXPECT_EQ(status_.bad_requests, 12u);
}

TEST_F(SessionTest, EveryTruncationOfReadFileRdmaIsRefused) {
  AgreeOnVersion();
  for (size_t size = 8; size < 32; ++size) {
    Bytes message = RdmaBytes(1, 10, 0, 0, u"");
    message.resize(size);
    EXPECT_EQ(Answered(message), RdmaAnswer(3, 0)) << size;
  }
  EXPECT_EQ(status_.bad_requests, 24u);
}

TEST_F(SessionTest, EveryTruncationOfAGetFileInfoPathIsRefusedOrAnotherPath) {
  AgreeOnVersion();
  const Bytes whole = InfoBytes(u"imc.hiv");
  EXPECT_EQ(Answered(InfoBytes(u"")), InfoAnswer(0, 1, 0));
  for (size_t size = 9; size < whole.size(); ++size) {
    const Bytes message(whole.begin(), whole.begin() + static_cast<ptrdiff_t>(size));
    EXPECT_EQ(Answered(message), InfoAnswer(size % 2 == 0 ? 1 : 3, 0, 0)) << size;
  }
}

TEST_F(SessionTest, BeforeAVersionWasAgreedRequestsGetStatus3) {
  EXPECT_EQ(Answered(InfoBytes(u"imc.hiv")), InfoAnswer(3, 0, 0));
  EXPECT_EQ(Answered(InfoBytes(u"missing")), InfoAnswer(3, 0, 0));
  EXPECT_EQ(Answered(ReadBytes(10, 0, u"imc.hiv")), ReadAnswerBytes(3));
  EXPECT_EQ(Answered(ReadBytes(0, 0, u"imc.hiv")), ReadAnswerBytes(3));
  EXPECT_EQ(Answered(RdmaBytes(1, 10, 0, 0, u"imc.hiv")), RdmaAnswer(3, 0));
  EXPECT_EQ(status_.bad_requests, 5u);
  EXPECT_EQ(status_.not_found, 0u);
  AgreeOnVersion();
  EXPECT_EQ(Answered(InfoBytes(u"imc.hiv")), InfoAnswer(0, 0, kFileBytes));
}

TEST_F(SessionTest, AVersionRequestOnAReadyChannelIsAnsweredAsIfItWereTheFirst) {
  AgreeOnVersion();
  const auto pinned = session_.backing();
  EXPECT_EQ(Answered(VersionBytes()), VersionAnswer(0));
  EXPECT_EQ(Answered(VersionBytes(7)), VersionAnswer(1));
  EXPECT_EQ(session_.backing(), pinned);
  EXPECT_EQ(Answered(InfoBytes(u"imc.hiv")), InfoAnswer(0, 0, kFileBytes));
}

TEST_F(SessionTest, WhereRdmaReadsAreOffType7GetsStatus3AndTheFlagStays0) {
  AgreeOnVersion();
  EXPECT_EQ(Answered(RdmaBytes(1, 0, 0, 0, u"imc.hiv")), RdmaAnswer(3, 0));
  EXPECT_EQ(Answered(RdmaBytes(1, 7 << 20, 0, 0, u"imc.hiv")), RdmaAnswer(3, 0));
  EXPECT_EQ(Answered(RdmaBytes(1, 10, kFileBytes, 0, u"missing")), RdmaAnswer(3, 0));
  EXPECT_EQ(Answered(InfoBytes(u"imc.hiv")), InfoAnswer(0, 0, kFileBytes));
}

TEST_F(SessionTest, RdmaReadsAreOfferedFromASizeOnAndServedBelowItToo) {
  for (const uint64_t bytes_min : {uint64_t{1}, uint64_t{kFileBytes}, uint64_t{kFileBytes} + 1}) {
    VmbfsDeviceStatus status;
    Session session(session_.backing(), bytes_min, status);
    ASSERT_TRUE(session.Handle(VersionBytes()).ok());
    const absl::StatusOr<Answer> info = session.Handle(InfoBytes(u"imc.hiv"));
    const auto bytes = std::get<Response>(*info).bytes();
    EXPECT_EQ(Bytes(bytes.begin(), bytes.end()),
              InfoAnswer(0, bytes_min <= kFileBytes ? 2 : 0, kFileBytes));
    const absl::StatusOr<Answer> answer =
        session.Handle(RdmaBytes(7, 0xFFFFFFFF, kFileBytes - 3, 9, u"imc.hiv"));
    const RdmaRead& read = std::get<RdmaRead>(*answer);
    EXPECT_EQ(read.byte_count, 3u);
    EXPECT_EQ(read.requested_bytes, 0xFFFFFFFFu);
    EXPECT_EQ(read.offset, kFileBytes - 3u);
    EXPECT_EQ(read.handle, 7u);
    EXPECT_EQ(read.token_offset, 9u);
  }
}

TEST_F(SessionTest, WhereNoLegalAnswerExistsTheChannelIsFaulted) {
  for (const bool ready : {false, true}) {
    if (ready) AgreeOnVersion();
    for (size_t size = 0; size < 8; ++size) {
      Bytes message = VersionBytes();
      message.resize(size);
      EXPECT_EQ(Fault(message).code(), absl::StatusCode::kInvalidArgument) << size;
    }
    Bytes too_long = InfoBytes(u"");
    too_long.resize(12289);
    EXPECT_EQ(Fault(too_long).code(), absl::StatusCode::kInvalidArgument);
    for (const uint32_t type : {0u, 9u, 0x10000u, 0xFFFFFFFFu, 0x01000000u}) {
      EXPECT_EQ(Fault(Join({Header(type), Bytes(24)})).code(), absl::StatusCode::kInvalidArgument)
          << type;
    }
    for (const uint32_t type : {2u, 4u, 6u, 8u}) {
      EXPECT_THAT(Fault(Join({Header(type), Bytes(24)})).message(),
                  testing::HasSubstr("host to guest only"));
    }
  }
}

// --- How real clients behave. ---

TEST_F(SessionTest, EveryWayToWriteThePathFindsTheFile) {
  AgreeOnVersion();
  for (const std::u16string_view path :
       {std::u16string_view(u"imc.hiv"), std::u16string_view(u"\\imc.hiv"),
        std::u16string_view(u"/IMC.HIV"), std::u16string_view(u".\\x\\..\\Imc.hiv"),
        std::u16string_view(u"\\\\imc.hiv\0", 10)}) {
    EXPECT_EQ(Answered(InfoBytes(path)), InfoAnswer(0, 0, kFileBytes));
    EXPECT_EQ(Answered(ReadBytes(2, 1, path)), ReadAnswerBytes(0, Hex("07 0e")));
  }
}

TEST_F(SessionTest, AboveTheRootAndMissingFilesAreNotFound) {
  AgreeOnVersion();
  for (const std::u16string_view path : {u"..", u"..\\imc.hiv", u"missing", u"imc.hiv\\x"}) {
    EXPECT_EQ(Answered(InfoBytes(path)), InfoAnswer(1, 0, 0));
    EXPECT_EQ(Answered(ReadBytes(10, 0, path)), ReadAnswerBytes(1));
  }
  EXPECT_EQ(status_.not_found, 8u);
  EXPECT_EQ(status_.bad_requests, 0u);
}

TEST_F(SessionTest, AReadAcrossTheEndIsShort) {
  AgreeOnVersion();
  EXPECT_EQ(Answered(ReadBytes(12276, kFileBytes - 1, u"imc.hiv")),
            ReadAnswerBytes(0, ContentRange(kFileBytes - 1, 1)));
  EXPECT_EQ(Answered(ReadBytes(12276, 12276, u"imc.hiv")),
            ReadAnswerBytes(0, ContentRange(12276, kFileBytes - 12276)));
}

TEST_F(SessionTest, AReadAtOrPastTheEndGetsEndOfFile) {
  AgreeOnVersion();
  for (const uint64_t offset :
       {uint64_t{kFileBytes}, uint64_t{kFileBytes} + 1, UINT64_MAX, UINT64_MAX - 12276}) {
    EXPECT_EQ(Answered(ReadBytes(12276, offset, u"imc.hiv")), ReadAnswerBytes(2));
  }
}

TEST_F(SessionTest, AnEmptyFileIsAtItsEnd) {
  VmbfsDeviceStatus status;
  Session session(
      std::make_shared<SingleFileBacking>(u"empty", std::make_shared<MemoryFile>(Bytes()), "test"),
      0, status);
  ASSERT_TRUE(session.Handle(VersionBytes()).ok());
  const absl::StatusOr<Answer> answer = session.Handle(ReadBytes(1, 0, u"empty"));
  ASSERT_TRUE(answer.ok());
  const std::span<const std::byte> bytes = std::get<Response>(*answer).bytes();
  EXPECT_EQ(Bytes(bytes.begin(), bytes.end()), ReadAnswerBytes(2));
}

TEST_F(SessionTest, RequestsAreCountedByKind) {
  AgreeOnVersion();
  Answered(InfoBytes(u"imc.hiv"));
  Answered(InfoBytes(u"missing"));
  Answered(ReadBytes(1, 0, u"imc.hiv"));
  Answered(Hex("05000000 00000000"));
  Answered(RdmaBytes(1, 1, 0, 0, u"imc.hiv"));
  EXPECT_EQ(status_.version_requests, 1u);
  EXPECT_EQ(status_.info_requests, 2u);
  EXPECT_EQ(status_.read_requests, 2u);
  EXPECT_EQ(status_.rdma_requests, 1u);
  EXPECT_EQ(status_.not_found, 1u);
  EXPECT_EQ(status_.bad_requests, 2u);
}

}  // namespace
}  // namespace vmbfs
