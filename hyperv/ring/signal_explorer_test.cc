// The signal rules of shared/specs/vmbus.md section 4.3 over the rings' own
// code: no order of two sides' steps makes one sleep with work waiting, and
// without any one of the rules some order does.

#include "hyperv/ring/signal_explorer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <iostream>
#include <ostream>
#include <string>
#include <vector>

namespace vmbfs::hyperv {
namespace {

using ::testing::AnyOf;
using ::testing::Each;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::StartsWith;

constexpr auto kWhileBusy = InterruptMasking::kWhileBusy;
constexpr auto kNever = InterruptMasking::kNever;

// Two packets of 24 bytes, or one of 32; with AddressSanitizer, ten times
// slower, one packet of either.
#ifdef VMBFS_ASAN
constexpr uint32_t kTwoSizesRingBytes = 48;
#else
constexpr uint32_t kTwoSizesRingBytes = 56;
#endif

struct Case {
  std::string name;
  SignalExploration exploration;
  std::string fault = "";  // what it starts with
};
void PrintTo(const Case& tried, std::ostream* stream) { *stream << tried.name; }

std::string NameOf(const ::testing::TestParamInfo<Case>& info) { return info.param.name; }

std::string Story(const SignalFindings& findings) {
  std::string story = findings.fault + "\n";
  for (const std::string& step : findings.steps) story += "  " + step + "\n";
  return story;
}

// Two packets of 32 bytes fill this ring, and wrap at each of its offsets.
SignalExploration Small(InterruptMasking masking, uint32_t packets_a_publish = 1,
                        uint32_t packets_a_consume = 1) {
  SignalExploration exploration;
  exploration.data_bytes = 72;
  exploration.writer.payload_bytes = {8};
  exploration.reader.masking = masking;
  exploration.writer.packets_a_publish = packets_a_publish;
  exploration.reader.packets_a_consume = packets_a_consume;
  return exploration;
}

SignalExploration Sized(uint32_t data_bytes, std::vector<uint32_t> payload_bytes,
                        InterruptMasking masking = kWhileBusy) {
  SignalExploration exploration = Small(masking);
  exploration.data_bytes = data_bytes;
  exploration.writer.payload_bytes = std::move(payload_bytes);
  return exploration;
}

SignalExploration ClearedWithRoom(InterruptMasking masking) {
  SignalExploration exploration = Small(masking);
  exploration.writer.clears_request_on_waking = false;
  return exploration;
}

SignalExploration After(uint32_t old_mask, uint32_t start_index, InterruptMasking masking) {
  SignalExploration exploration = Small(masking);
  exploration.old_mask = old_mask;
  exploration.start_index = start_index;
  return exploration;
}

SignalExploration WriterIs(RingCode code, InterruptMasking masking) {
  SignalExploration exploration = Small(masking);
  exploration.writer.code = code;
  return exploration;
}

SignalExploration ReaderIs(RingCode code) {
  SignalExploration exploration = Small(kNever);
  exploration.reader.code = code;
  return exploration;
}

class ExplorationTest : public ::testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
#ifdef VMBFS_TSAN
    GTEST_SKIP() << "one thread, and 20 times slower";
#endif
  }
};

class SignalRulesTest : public ExplorationTest {};

// Statements 53, 56, 57 and 58.
TEST_P(SignalRulesTest, NeitherSideSleepsWithWorkWaiting) {
  const SignalFindings findings = ExploreSignals(GetParam().exploration);
  EXPECT_THAT(findings.fault, IsEmpty()) << Story(findings);
  EXPECT_GT(findings.reader_sleeps, 0u);
  EXPECT_GT(findings.writer_sleeps, 0u);
  EXPECT_GT(findings.signals_under_way, 0u);
  EXPECT_GT(findings.data_wraps, 0u);
  std::cout << findings.states << " states, " << findings.transitions << " transitions\n";
}

INSTANTIATE_TEST_SUITE_P(
    Rings, SignalRulesTest,
    ::testing::Values(Case{"Masking", Small(kWhileBusy)}, Case{"NeverMasking", Small(kNever)},
                      Case{"MaskingTwoPublished", Small(kWhileBusy, 2, 1)},
                      Case{"NeverMaskingTwoPublished", Small(kNever, 2, 1)},
                      Case{"MaskingTwoConsumed", Small(kWhileBusy, 1, 2)},
                      Case{"NeverMaskingTwoConsumed", Small(kNever, 1, 2)},
                      Case{"MaskingTwoOfBoth", Small(kWhileBusy, 2, 2)},
                      Case{"NeverMaskingTwoOfBoth", Small(kNever, 2, 2)},
                      Case{"MaskingRequestClearedWithRoom", ClearedWithRoom(kWhileBusy)},
                      Case{"NeverMaskingRequestClearedWithRoom", ClearedWithRoom(kNever)},
                      // 24 or 32 bytes in any order.
                      Case{"MaskingTwoSizes", Sized(kTwoSizesRingBytes, {0, 8})},
                      Case{"NeverMaskingTwoSizes", Sized(kTwoSizesRingBytes, {0, 8}, kNever)},
                      Case{"MaskingOnePacketAtATime", Sized(48, {8})},
                      Case{"MaskingLargePackets", Sized(96, {16})},
                      // A quarter of the ring is more than a packet of 24 bytes.
                      Case{"MaskingAsksForMoreThanItNeeds", Sized(120, {0})},
                      Case{"NeverMaskingAsksForMoreThanItNeeds", Sized(120, {0}, kNever)},
                      Case{"MaskingAfterAReaderThatMasked", After(1, 40, kWhileBusy)},
                      Case{"NeverMaskingAfterAReaderThatMasked", After(1, 40, kNever)}),
    NameOf);

// The firmware waits with S - 1 and never masks; Linux counts free space in
// its own way and masks.
INSTANTIATE_TEST_SUITE_P(
    Peers, SignalRulesTest,
    ::testing::Values(Case{"FirmwareWritesToMasking", WriterIs(RingCode::kFirmware, kWhileBusy)},
                      Case{"FirmwareWritesToNeverMasking", WriterIs(RingCode::kFirmware, kNever)},
                      Case{"LinuxWritesToMasking", WriterIs(RingCode::kLinux, kWhileBusy)},
                      Case{"LinuxWritesToNeverMasking", WriterIs(RingCode::kLinux, kNever)},
                      Case{"FirmwareReads", ReaderIs(RingCode::kFirmware)},
                      Case{"LinuxReads", ReaderIs(RingCode::kLinux)}),
    NameOf);

SignalExploration PlainStore(ControlWord word, SignalExploration exploration) {
  exploration.mutation.plain_store = word;
  return exploration;
}

SignalExploration PlainLoad(ControlWord word, SignalExploration exploration) {
  exploration.mutation.plain_load = word;
  return exploration;
}

SignalExploration Early(RingCall call, ControlWord word, SignalExploration exploration) {
  exploration.mutation.early_call = call;
  exploration.mutation.early_word = word;
  return exploration;
}

SignalExploration Unsignalled(RingCall call, SignalExploration exploration) {
  exploration.mutation.unsignalled_call = call;
  return exploration;
}

SignalExploration MaskGatesSpaceSignal(SignalExploration exploration) {
  exploration.mutation.mask_gates_space_signal = true;
  return exploration;
}

SignalExploration NotRoundedDown(SignalExploration exploration) {
  exploration.mutation.pending_is_not_rounded_down = true;
  return exploration;
}

SignalExploration RoomNotChecked(SignalExploration exploration) {
  exploration.mutation.room_is_not_checked = true;
  return exploration;
}

class BrokenRuleTest : public ExplorationTest {};

TEST_P(BrokenRuleTest, IsFoundWithTheStepsThatLeadThere) {
  const SignalFindings findings = ExploreSignals(GetParam().exploration);
  EXPECT_THAT(findings.fault, StartsWith(GetParam().fault)) << Story(findings);
  EXPECT_THAT(findings.steps, Not(IsEmpty()));
  EXPECT_THAT(findings.steps, Each(AnyOf(StartsWith("writer"), StartsWith("reader"))));
}

constexpr char kReaderSleeps[] = "the reader sleeps while";
constexpr char kWriterSleeps[] = "the writer sleeps until";

INSTANTIATE_TEST_SUITE_P(
    Stores, BrokenRuleTest,
    ::testing::Values(
        Case{"In", PlainStore(ControlWord::kIn, Small(kWhileBusy)), kReaderSleeps},
        Case{"InNeverMasking", PlainStore(ControlWord::kIn, Small(kNever)), kReaderSleeps},
        Case{"Out", PlainStore(ControlWord::kOut, Small(kWhileBusy)), kWriterSleeps},
        Case{"OutNeverMasking", PlainStore(ControlWord::kOut, Small(kNever)), kWriterSleeps},
        Case{"Mask", PlainStore(ControlWord::kInterruptMask, Small(kWhileBusy)), kReaderSleeps},
        Case{"MaskAtOpen", PlainStore(ControlWord::kInterruptMask, After(1, 0, kNever)),
             kReaderSleeps},
        Case{"Pending", PlainStore(ControlWord::kPendingSendSize, Small(kWhileBusy)),
             kWriterSleeps}),
    NameOf);

INSTANTIATE_TEST_SUITE_P(
    Loads, BrokenRuleTest,
    ::testing::Values(
        Case{"In", PlainLoad(ControlWord::kIn, Small(kWhileBusy)), kReaderSleeps},
        Case{"InAfterOpen", PlainLoad(ControlWord::kIn, After(1, 0, kNever)), kReaderSleeps},
        Case{"Out", PlainLoad(ControlWord::kOut, Small(kWhileBusy)), kWriterSleeps},
        Case{"Mask", PlainLoad(ControlWord::kInterruptMask, Small(kWhileBusy)), kReaderSleeps},
        Case{"Pending", PlainLoad(ControlWord::kPendingSendSize, Small(kWhileBusy)),
             kWriterSleeps}),
    NameOf);

// A look ahead of the store that it must follow is a second look left out.
INSTANTIATE_TEST_SUITE_P(
    LooksAhead, BrokenRuleTest,
    ::testing::Values(
        Case{"MaskInPublish",
             Early(RingCall::kPublish, ControlWord::kInterruptMask, Small(kWhileBusy)),
             kReaderSleeps},
        Case{"OutInPublish", Early(RingCall::kPublish, ControlWord::kOut, Small(kWhileBusy)),
             kReaderSleeps},
        Case{"OutInRequestSpace",
             Early(RingCall::kRequestSpace, ControlWord::kOut, Small(kWhileBusy)), kWriterSleeps},
        Case{"PendingInConsume",
             Early(RingCall::kConsume, ControlWord::kPendingSendSize, Small(kWhileBusy)),
             kWriterSleeps},
        Case{"InInConsume", Early(RingCall::kConsume, ControlWord::kIn, Small(kWhileBusy)),
             kWriterSleeps},
        Case{"InInArm", Early(RingCall::kArm, ControlWord::kIn, Small(kWhileBusy)), kReaderSleeps}),
    NameOf);

INSTANTIATE_TEST_SUITE_P(
    Signals, BrokenRuleTest,
    ::testing::Values(
        Case{"NotSentByPublish", Unsignalled(RingCall::kPublish, Small(kWhileBusy)), kReaderSleeps},
        Case{"NotSentByConsume", Unsignalled(RingCall::kConsume, Small(kWhileBusy)), kWriterSleeps},
        Case{"NotSentByConsumeWhileMasked", MaskGatesSpaceSignal(Small(kWhileBusy)), kWriterSleeps},
        Case{"SizeLessOneNotRounded", NotRoundedDown(WriterIs(RingCode::kFirmware, kWhileBusy)),
             kWriterSleeps}),
    NameOf);

INSTANTIATE_TEST_SUITE_P(Packets, BrokenRuleTest,
                         ::testing::Values(Case{"RoomNotChecked", RoomNotChecked(Small(kWhileBusy)),
                                                "the ring is refused"}),
                         NameOf);

class CoveredRuleTest : public ExplorationTest {};

TEST_P(CoveredRuleTest, LosesNothingAlone) {
  const SignalFindings findings = ExploreSignals(GetParam().exploration);
  EXPECT_THAT(findings.fault, IsEmpty()) << Story(findings);
}

// A reader that never masks has no store in Arm: the fence is Consume's, in
// its load of the pending size, or Open's. Its mask is 0 whenever it is read.
INSTANTIATE_TEST_SUITE_P(
    NeverMasking, CoveredRuleTest,
    ::testing::Values(Case{"PlainLoadOfIn", PlainLoad(ControlWord::kIn, Small(kNever))},
                      Case{"PlainLoadOfMask",
                           PlainLoad(ControlWord::kInterruptMask, Small(kNever))},
                      Case{"EarlyLoadOfMask",
                           Early(RingCall::kPublish, ControlWord::kInterruptMask, Small(kNever))}),
    NameOf);

}  // namespace
}  // namespace vmbfs::hyperv
