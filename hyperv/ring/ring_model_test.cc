// Both sides of a ring in random order, beside a model that counts bytes and
// knows who sleeps. It predicts every result and every signal.

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <deque>
#include <optional>
#include <random>
#include <tuple>
#include <vector>

#include "hyperv/ring/incoming_ring.h"
#include "hyperv/ring/outgoing_ring.h"
#include "hyperv/ring/private_ring_pages.h"

namespace vmbfs::hyperv {
namespace {

// Indices that never wrap: offsets since the ring was made.
struct Model {
  uint64_t data_bytes = 0;
  uint64_t committed = 0;
  uint64_t in = 0;
  uint64_t read = 0;
  uint64_t out = 0;
  bool reader_sleeps = false;
  bool reader_masked = true;
  bool writer_sleeps = false;
  uint64_t pending = 0;
  std::deque<std::vector<std::byte>> packets;  // committed, not read

  uint64_t Free(uint64_t upto) const { return data_bytes - 8 - (upto - out); }
};

using Parameters = std::tuple<PageLayout, size_t /* data pages */, InterruptMasking>;

class RingModelTest : public ::testing::TestWithParam<Parameters> {
 protected:
  void SetUp() override {
    auto reader = IncomingRing::Open(pages_.Map(), std::get<2>(GetParam()));
    auto writer = OutgoingRing::Open(pages_.Map());
    ASSERT_TRUE(reader.ok() && writer.ok());
    reader_.emplace(*std::move(reader));
    writer_.emplace(*std::move(writer));
    model_.data_bytes = writer_->data_bytes();
    model_.reader_masked = std::get<2>(GetParam()) == InterruptMasking::kWhileBusy;
  }

  uint64_t Random(uint64_t below) { return random_() % below; }

  std::vector<std::byte> RandomPayload() {
    const size_t most = Random(4) == 0 ? writer_->payload_bytes_max() : 200;
    std::vector<std::byte> payload(Random(most + 1));
    const uint64_t seed = random_();
    for (size_t i = 0; i < payload.size(); ++i) payload[i] = static_cast<std::byte>(seed + i * 7);
    return payload;
  }

  void Commit() {
    const auto payload = RandomPayload();
    const uint64_t ring_bytes = 24 + (payload.size() + 7) / 8 * 8;
    const bool fits = ring_bytes <= model_.Free(model_.committed);
    ASSERT_EQ(*writer_->Reserve(payload.size()), fits);
    if (fits) {
      writer_->CopyIn(0, payload);
      writer_->Commit(payload.size());
      model_.packets.push_back(payload);
      model_.committed += ring_bytes;
    } else if (model_.committed == model_.in) {
      ASSERT_NO_FATAL_FAILURE(WaitForSpace(payload.size(), ring_bytes));
    }
  }

  void WaitForSpace(size_t payload_bytes, uint64_t ring_bytes) {
    ASSERT_FALSE(*writer_->RequestSpace(payload_bytes));
    // (S - 8) / 4 rounded up to 8: a quarter of the ring.
    model_.pending = std::max(ring_bytes, model_.data_bytes / 4);
    model_.writer_sleeps = true;
  }

  void Publish() {
    const bool something = model_.committed != model_.in;
    const bool drained = model_.out == model_.in;
    model_.in = model_.committed;
    const bool signal = something && drained && !model_.reader_masked;
    ASSERT_EQ(writer_->Publish(), signal);
    if (something && model_.reader_sleeps) {
      ASSERT_TRUE(signal) << "the reader sleeps and is not woken";
    }
    if (signal) model_.reader_sleeps = false;
  }

  void Read() {
    std::array<std::byte, 3 * kPageBytes> buffer;
    const auto packet = reader_->Read(buffer);
    ASSERT_TRUE(packet.ok()) << packet.status();
    ASSERT_EQ(packet->has_value(), model_.read != model_.in);
    if (!packet->has_value()) return;
    const auto expected = model_.packets.front();
    model_.packets.pop_front();
    const auto payload = (*packet)->payload;
    ASSERT_EQ(payload.size(), (expected.size() + 7) / 8 * 8);
    ASSERT_TRUE(std::equal(expected.begin(), expected.end(), payload.begin()));
    model_.read += (*packet)->view.ring_bytes;
  }

  void Consume() {
    const uint64_t old_free = model_.Free(model_.in);
    const bool something = model_.read != model_.out;
    model_.out = model_.read;
    const uint64_t new_free = model_.Free(model_.in);
    const bool signal =
        something && model_.pending != 0 && old_free < model_.pending && new_free >= model_.pending;
    ASSERT_EQ(reader_->Consume(), signal);
    if (signal) {
      model_.writer_sleeps = false;
      model_.pending = 0;
      writer_->ClearSpaceRequest();
    }
    // A writer that still waits has less room than it asked for.
    ASSERT_TRUE(!model_.writer_sleeps || new_free < model_.pending);
  }

  void Sleep() {
    Consume();
    const bool more = model_.in != model_.read;
    const auto armed = reader_->Arm();
    ASSERT_TRUE(armed.ok());
    ASSERT_EQ(*armed, more);
    model_.reader_masked = false;
    model_.reader_sleeps = !more;
  }

  void Mask() {
    reader_->Mask();
    model_.reader_masked = std::get<2>(GetParam()) == InterruptMasking::kWhileBusy;
  }

  void Step() {
    if (!model_.writer_sleeps) {
      switch (Random(4)) {
        case 0:
          return Publish();
        case 1:
        case 2:
          return Commit();
        default:
          break;
      }
    }
    if (model_.reader_sleeps) return;
    switch (Random(5)) {
      case 0:
      case 1:
        return Read();
      case 2:
        return Consume();
      case 3:
        return Sleep();
      default:
        return Mask();
    }
  }

  PrivateRingPages pages_{std::get<1>(GetParam()), std::get<0>(GetParam())};
  std::optional<IncomingRing> reader_;
  std::optional<OutgoingRing> writer_;
  Model model_;
  std::mt19937_64 random_{20240229};
};

TEST_P(RingModelTest, RandomOrdersGiveThePredictedPacketsAndSignals) {
  for (int step = 0; step < 30'000; ++step) {
    ASSERT_NO_FATAL_FAILURE(Step()) << "step " << step;
    ASSERT_FALSE(model_.reader_sleeps && model_.writer_sleeps) << "step " << step;
  }
  EXPECT_GT(reader_->packets(), 1'500u);
  EXPECT_EQ(writer_->packets(), reader_->packets() + model_.packets.size());
  EXPECT_TRUE(pages_.OutsideIsUntouched());
}

INSTANTIATE_TEST_SUITE_P(
    All, RingModelTest,
    ::testing::Combine(::testing::ValuesIn(kPageLayouts), ::testing::Values(size_t{1}, size_t{3}),
                       ::testing::Values(InterruptMasking::kWhileBusy, InterruptMasking::kNever)));

}  // namespace
}  // namespace vmbfs::hyperv
