// The client against a scripted channel. Expected bytes are those of
// shared/specs/vmbfs.md and vmbus.md 6.3.

#include "core/vmbfs_client/vmbfs_client.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <deque>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "hyperv/guest/guest_ram.h"
#include "hyperv/pipe/pipe_format.h"

namespace vmbfs {
namespace {

using Bytes = std::vector<std::byte>;

// Each byte of `text` as one byte; write zeros as \0 and mind what follows.
Bytes B(std::string_view text) {
  const auto bytes = std::as_bytes(std::span(text));
  return {bytes.begin(), bytes.end()};
}

Bytes Join(std::initializer_list<Bytes> parts) {
  Bytes whole;
  for (const Bytes& part : parts) whole.insert(whole.end(), part.begin(), part.end());
  return whole;
}

Bytes U32(uint32_t value) {
  Bytes bytes;
  for (int shift = 0; shift < 32; shift += 8) bytes.push_back(std::byte(value >> shift & 0xFF));
  return bytes;
}

Bytes U64(uint64_t value) {
  return Join({U32(static_cast<uint32_t>(value)), U32(static_cast<uint32_t>(value >> 32))});
}

// Answers each message with the next scripted one.
class ScriptedChannel final : public hyperv::GuestChannel {
 public:
  const hyperv::GuestOffer& offer() const override { return offer_; }
  hyperv::MessagePipe& pipe() override { std::abort(); }  // the client has no use for it
  std::optional<uint32_t> last_signal_vp() const override { return std::nullopt; }
  absl::Status Wait() override { return absl::UnimplementedError("scripted"); }
  absl::Status SendDeferred(hyperv::PipeMessageType type,
                            std::span<const std::byte> data) override {
    requests.push_back(Join({U32(static_cast<uint32_t>(type)), {data.begin(), data.end()}}));
    return absl::OkStatus();
  }
  absl::StatusOr<std::span<std::byte>> Exchange(std::span<const std::byte> message,
                                                std::span<std::byte> buffer) override {
    requests.emplace_back(message.begin(), message.end());
    if (answers.empty()) return absl::DeadlineExceededError("nothing scripted");
    const Bytes answer = answers.front();
    answers.pop_front();
    EXPECT_LE(answer.size(), buffer.size());
    std::copy(answer.begin(), answer.end(), buffer.begin());
    return buffer.first(answer.size());
  }

  std::vector<Bytes> requests;
  std::deque<Bytes> answers;

 private:
  const hyperv::GuestOffer offer_;
};

Bytes InfoAnswer(uint32_t status, uint32_t flags, uint64_t size) {
  return Join({U32(4), U32(0), U32(status), U32(flags), U64(size)});
}
Bytes ReadAnswerBytes(uint32_t status, const Bytes& data) {
  return Join({U32(6), U32(0), U32(status), data});
}

class VmbfsClientTest : public testing::Test {
 protected:
  ScriptedChannel channel_;
  VmbfsClient client_{channel_};
};

TEST_F(VmbfsClientTest, NegotiateSendsTwelveBytesAndReadsTheStatus) {
  channel_.answers = {Join({U32(2), U32(0), U32(0)}), Join({U32(2), U32(0), U32(1)})};
  EXPECT_TRUE(*client_.Negotiate());
  EXPECT_FALSE(*client_.Negotiate(0x00020000));
  EXPECT_EQ(channel_.requests[0], Join({U32(1), U32(0), U32(0x00010000)}));
  EXPECT_EQ(channel_.requests[1], Join({U32(1), U32(0), U32(0x00020000)}));
}

TEST_F(VmbfsClientTest, VersionAnswerOfAnotherSizeOrTypeIsDataLoss) {
  channel_.answers = {Join({U32(2), U32(0)}), Join({U32(2), U32(0), U32(0), U32(0)}),
                      Join({U32(4), U32(0), U32(0)})};
  for (int answer = 0; answer < 3; ++answer) {
    EXPECT_EQ(client_.Negotiate().status().code(), absl::StatusCode::kDataLoss);
  }
}

TEST_F(VmbfsClientTest, FileInfoSendsThePathAsItIs) {
  channel_.answers = {InfoAnswer(0, 2, 0x123456789A)};
  absl::StatusOr<FileInfoAnswer> info = client_.GetFileInfo(u"\\..\\imc.hiv");
  ASSERT_TRUE(info.ok());
  EXPECT_EQ(info->status, FileStatus::kSuccess);
  EXPECT_FALSE(info->directory);
  EXPECT_TRUE(info->rdma);
  EXPECT_EQ(info->size_bytes, 0x123456789Au);
  using std::string_view_literals::operator""sv;
  EXPECT_EQ(channel_.requests[0],
            Join({U32(3), U32(0), B("\\\0.\0.\0\\\0i\0m\0c\0.\0h\0i\0v\0"sv)}));
}

TEST_F(VmbfsClientTest, FileInfoOfADirectoryAndOfAMissingFile) {
  channel_.answers = {InfoAnswer(0, 1, 0), InfoAnswer(1, 0, 0)};
  EXPECT_TRUE(client_.GetFileInfo(u"a")->directory);
  EXPECT_EQ(client_.GetFileInfo(u"a")->status, FileStatus::kNotFound);
}

TEST_F(VmbfsClientTest, FileInfoAnswerOfAnotherSizeTypeOrStatusIsDataLoss) {
  Bytes short_answer = InfoAnswer(0, 0, 5);
  short_answer.pop_back();
  Bytes long_answer = InfoAnswer(0, 0, 5);
  long_answer.push_back(std::byte{0});
  Bytes foreign = InfoAnswer(0, 0, 5);
  foreign[0] = std::byte{6};
  channel_.answers = {short_answer, long_answer, foreign, InfoAnswer(4, 0, 0)};
  for (int answer = 0; answer < 4; ++answer) {
    EXPECT_EQ(client_.GetFileInfo(u"a").status().code(), absl::StatusCode::kDataLoss);
  }
}

TEST_F(VmbfsClientTest, ReadPutsTheOffsetAtByteTwelve) {
  channel_.answers = {ReadAnswerBytes(0, B("data"))};
  absl::StatusOr<ReadAnswer> read = client_.Read(u"f", 0x1122334455667788, 12276);
  ASSERT_TRUE(read.ok());
  EXPECT_EQ(read->data, B("data"));
  EXPECT_EQ(channel_.requests[0],
            Join({U32(5), U32(0), U32(12276), U64(0x1122334455667788), {std::byte{'f'}, {}}}));
}

TEST_F(VmbfsClientTest, ReadWithMoreThanWasAskedForIsDataLoss) {
  channel_.answers = {ReadAnswerBytes(0, B("data")), Join({U32(6), U32(0)})};
  EXPECT_EQ(client_.Read(u"f", 0, 3).status().code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(client_.Read(u"f", 0, 3).status().code(), absl::StatusCode::kDataLoss);
}

TEST_F(VmbfsClientTest, PathThatFitsNoMessageIsRefusedUnsent) {
  EXPECT_EQ(client_.GetFileInfo(std::u16string(6141, u'a')).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(channel_.requests.empty());
}

TEST_F(VmbfsClientTest, ReadFileGoesOnAfterShortReadsUntilTheSize) {
  const Bytes first(12276, std::byte{1});
  channel_.answers = {InfoAnswer(0, 0, 12280), ReadAnswerBytes(0, first),
                      ReadAnswerBytes(0, B("ab")), ReadAnswerBytes(0, B("cd"))};
  absl::StatusOr<Bytes> file = client_.ReadFile(u"f");
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(*file, Join({first, B("abcd")}));
  ASSERT_EQ(channel_.requests.size(), 4u);
  const Bytes path = {std::byte{'f'}, {}};
  EXPECT_EQ(channel_.requests[1], Join({U32(5), U32(0), U32(12276), U64(0), path}));
  EXPECT_EQ(channel_.requests[3], Join({U32(5), U32(0), U32(2), U64(12278), path}));
}

class VmbfsClientRdmaTest : public VmbfsClientTest {
 protected:
  VmbfsClientRdmaTest() { client_.UseRdma(buffer_); }
  ~VmbfsClientRdmaTest() override { client_.UseRdma(nullptr); }

  const std::unique_ptr<hyperv::GuestRam> ram_ = hyperv::GuestRam::Create(16 * 4096).value();
  const std::shared_ptr<const hyperv::GuestPages> buffer_ =
      std::make_shared<hyperv::GuestPages>(*ram_, std::vector<uint64_t>{5, 9});
};

Bytes RdmaAnswerBytes(uint32_t status, uint32_t byte_count) {
  return Join({U32(8), U32(0), U32(status), U32(byte_count)});
}

// shared/specs/vmbus.md section 5.3 and the sequence of 6.4.
TEST_F(VmbfsClientRdmaTest, ReadRegistersABufferAsksAndTakesItBack) {
  channel_.answers = {RdmaAnswerBytes(0, 4100)};
  const absl::StatusOr<RdmaReadAnswer> read =
      client_.ReadRdma(u"f", 0x1122334455667788, 5000, *buffer_);
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->status, FileStatus::kSuccess);
  EXPECT_EQ(read->byte_count, 4100u);
  ASSERT_EQ(channel_.requests.size(), 3u);
  EXPECT_EQ(channel_.requests[0],
            Join({U32(3), U32(1), {std::byte{1}}, U32(1), U32(5000), U32(0), U64(5), U64(9)}));
  EXPECT_EQ(channel_.requests[1], Join({U32(7),
                                        U32(0),
                                        U32(1),
                                        U32(5000),
                                        U64(0x1122334455667788),
                                        U64(0),
                                        {std::byte{'f'}, {}}}));
  EXPECT_EQ(channel_.requests[2], Join({U32(4), U32(1)}));
}

TEST_F(VmbfsClientRdmaTest, AnswerOfAnotherSizeTypeStatusOrWithMoreThanAskedForIsDataLoss) {
  Bytes long_answer = RdmaAnswerBytes(0, 1);
  long_answer.push_back(std::byte{0});
  channel_.answers = {long_answer, InfoAnswer(0, 0, 1), RdmaAnswerBytes(4, 0),
                      RdmaAnswerBytes(0, 2)};
  for (int answer = 0; answer < 4; ++answer) {
    EXPECT_EQ(client_.ReadRdma(u"f", 0, 1, *buffer_).status().code(), absl::StatusCode::kDataLoss);
  }
}

TEST_F(VmbfsClientRdmaTest, ReadFileReadsAsOffered) {
  std::fill_n(ram_->Page(5).data(), 4096, std::byte{'a'});
  std::fill_n(ram_->Page(9).data(), 4096, std::byte{'b'});
  channel_.answers = {InfoAnswer(0, 2, 8195), RdmaAnswerBytes(0, 8192), RdmaAnswerBytes(0, 3)};
  const absl::StatusOr<Bytes> file = client_.ReadFile(u"f");
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(*file, Join({Bytes(4096, std::byte{'a'}), Bytes(4096, std::byte{'b'}),
                         Bytes(3, std::byte{'a'})}));
  EXPECT_EQ(channel_.requests.size(), 7u);

  channel_.answers = {InfoAnswer(0, 0, 2), ReadAnswerBytes(0, B("ab"))};
  EXPECT_EQ(*client_.ReadFile(u"f"), B("ab"));
  channel_.answers = {InfoAnswer(0, 2, 2), RdmaAnswerBytes(3, 0), InfoAnswer(0, 2, 2),
                      RdmaAnswerBytes(0, 0)};
  EXPECT_EQ(client_.ReadFile(u"f").status().code(), absl::StatusCode::kInternal);
  EXPECT_EQ(client_.ReadFile(u"f").status().code(), absl::StatusCode::kDataLoss);
}

TEST_F(VmbfsClientTest, EmptyFileNeedsNoRead) {
  channel_.answers = {InfoAnswer(0, 0, 0)};
  EXPECT_TRUE(client_.ReadFile(u"f")->empty());
  EXPECT_EQ(channel_.requests.size(), 1u);
}

TEST_F(VmbfsClientTest, ReadFileSaysWhyItFailed) {
  channel_.answers = {InfoAnswer(1, 0, 0), InfoAnswer(3, 0, 0),
                      InfoAnswer(0, 1, 0), InfoAnswer(0, 0, uint64_t{1} << 63),
                      InfoAnswer(0, 0, 4), ReadAnswerBytes(2, {}),
                      InfoAnswer(0, 0, 4), ReadAnswerBytes(0, {}),
                      InfoAnswer(0, 0, 4), ReadAnswerBytes(3, {})};
  for (absl::StatusCode code :
       {absl::StatusCode::kNotFound, absl::StatusCode::kInternal,
        absl::StatusCode::kFailedPrecondition, absl::StatusCode::kResourceExhausted,
        absl::StatusCode::kDataLoss, absl::StatusCode::kDataLoss, absl::StatusCode::kInternal}) {
    EXPECT_EQ(client_.ReadFile(u"f").status().code(), code);
  }
}

TEST_F(VmbfsClientTest, RawPassesBytesBothWaysAndErrorsUp) {
  channel_.answers = {B("answer")};
  EXPECT_EQ(*client_.Raw(B("question")), B("answer"));
  EXPECT_EQ(channel_.requests[0], B("question"));
  EXPECT_EQ(client_.Raw({}).status().code(), absl::StatusCode::kDeadlineExceeded);
}

}  // namespace
}  // namespace vmbfs
