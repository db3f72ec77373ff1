#include "hyperv/ring/explored_processor.h"

#include <gtest/gtest.h>

#include <array>
#include <cstddef>
#include <functional>
#include <string>
#include <vector>

namespace vmbfs::hyperv {
namespace {

constexpr uint32_t kDataBytes = 64;

class ExploredProcessorTest : public ::testing::Test {
 protected:
  ExploredProcessorTest() { machine_.memory = ExploredProcessor::NewMemory(kDataBytes); }

  // Runs `call` once more; false when it has come to its end.
  bool Run(ExploredProcessor& processor, const std::function<void()>& call) {
    processor.Start(machine_, 0, nullptr);
    try {
      call();
    } catch (const ExploredProcessor::Suspended&) {
      return true;
    }
    return false;
  }

  uint32_t InMemory(ControlWord word) const {
    return ExploredProcessor::WordInMemory(machine_, word);
  }
  void Drain(size_t side) { ExploredProcessor::Drain(machine_, side, kDataBytes, nullptr); }

  ExploredMachine machine_;
  ExploredProcessor writer_{kWriterSide, kDataBytes, {}};
  ExploredProcessor reader_{kReaderSide, kDataBytes, {}};
};

TEST_F(ExploredProcessorTest, StoreWaitsForItsDrainAndIsSeenByItsOwnSideOnly) {
  uint32_t own = 0;
  const auto store_and_load = [&] {
    writer_.Store(ControlWord::kIn, 8, false);
    own = writer_.Load(ControlWord::kIn, false);
  };
  EXPECT_TRUE(Run(writer_, store_and_load));
  EXPECT_FALSE(Run(writer_, store_and_load));
  EXPECT_EQ(own, 8u);
  uint32_t others = 99;
  EXPECT_FALSE(Run(reader_, [&] { others = reader_.Load(ControlWord::kIn, false); }));
  EXPECT_EQ(others, 0u);
  Drain(kWriterSide);
  EXPECT_EQ(InMemory(ControlWord::kIn), 8u);
  EXPECT_FALSE(ExploredProcessor::CanDrain(machine_.sides[kWriterSide]));
}

TEST_F(ExploredProcessorTest, StoresReachMemoryInTheirOrder) {
  EXPECT_FALSE(Run(writer_, [&] {
    writer_.Store(ControlWord::kIn, 8, false);
    writer_.Store(ControlWord::kPendingSendSize, 24, false);
  }));
  Drain(kWriterSide);
  EXPECT_EQ(InMemory(ControlWord::kIn), 8u);
  EXPECT_EQ(InMemory(ControlWord::kPendingSendSize), 0u);
  Drain(kWriterSide);
  EXPECT_EQ(InMemory(ControlWord::kPendingSendSize), 24u);
}

TEST_F(ExploredProcessorTest, FencedLoadWaitsForAFencedStoreAndPlainOnesForNothing) {
  const auto run = [this](bool fenced_store, bool fenced_load) {
    machine_.sides[kWriterSide] = {};
    const auto store_and_load = [&] {
      writer_.Store(ControlWord::kIn, 8, fenced_store);
      (void)writer_.Load(ControlWord::kOut, fenced_load);
    };
    (void)Run(writer_, store_and_load);
    return Run(writer_, store_and_load);
  };
  EXPECT_TRUE(run(true, true));
  EXPECT_FALSE(run(true, false));
  EXPECT_FALSE(run(false, true));
}

TEST_F(ExploredProcessorTest, EachRunDoesOneOperationMoreAndRepeatsTheResultsBefore) {
  std::vector<uint32_t> loaded;
  const auto call = [&] {
    loaded.clear();
    loaded.push_back(reader_.Load(ControlWord::kIn, false));
    loaded.push_back(reader_.Load(ControlWord::kIn, false));
  };
  EXPECT_TRUE(Run(reader_, call));
  ExploredProcessor::SetWordInMemory(machine_, ControlWord::kIn, 16);
  EXPECT_FALSE(Run(reader_, call));
  EXPECT_EQ(loaded, (std::vector<uint32_t>{0, 16}));
}

TEST_F(ExploredProcessorTest, SpaceThatIsGivenUpIsScribbledOver) {
  const std::array<std::byte, 8> bytes{};
  EXPECT_FALSE(Run(writer_, [&] {
    writer_.CopyIn(56, bytes);
    writer_.CopyIn(0, bytes);
    writer_.Store(ControlWord::kIn, 8, false);
  }));
  Drain(kWriterSide);
  const std::string written = machine_.memory;
  ExploredProcessor::SetWordInMemory(machine_, ControlWord::kOut, 56);
  EXPECT_FALSE(Run(reader_, [&] { reader_.Store(ControlWord::kOut, 8, false); }));
  Drain(kReaderSide);
  const size_t data = written.size() - kDataBytes;
  EXPECT_EQ(written.substr(data + 56), std::string(8, '\0'));
  EXPECT_EQ(machine_.memory.substr(data), std::string(kDataBytes, '\xEE'));
}

}  // namespace
}  // namespace vmbfs::hyperv
