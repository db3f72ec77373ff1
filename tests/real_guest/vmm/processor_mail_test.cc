#include "tests/real_guest/vmm/processor_mail.h"

#include <gtest/gtest.h>
#include <poll.h>

namespace vmbfs::test_vmm {
namespace {

constexpr PostedMessage Message(uint32_t connection = 1, uint32_t size = 8) {
  PostedMessage message;
  message.connection = connection;
  message.size = size;
  return message;
}

bool Readable(const ProcessorMail& mail) {
  pollfd fd{.fd = mail.fd(), .events = POLLIN, .revents = 0};
  return poll(&fd, 1, 0) == 1;
}

TEST(ProcessorMailTest, SeventeenthMessageFindsNoBufferUntilOneIsDone) {
  ProcessorMail mail(true);
  for (int post = 0; post < 16; ++post) EXPECT_EQ(mail.PostMessage(Message()), 0);
  EXPECT_EQ(mail.PostMessage(Message()), 0x13);
  EXPECT_EQ(mail.Take().posts.size(), 16u);
  EXPECT_EQ(mail.PostMessage(Message()), 0x13) << "taken is not done";
  mail.PostsDone(1);
  EXPECT_EQ(mail.PostMessage(Message()), 0);
  EXPECT_EQ(mail.PostMessage(Message()), 0x13);
}

TEST(ProcessorMailTest, MessageThatNobodyTakesIsRefused) {
  ProcessorMail mail(true);
  EXPECT_EQ(mail.PostMessage(Message(1, 240)), 0);
  EXPECT_EQ(mail.PostMessage(Message(1, 241)), 5);
  EXPECT_EQ(mail.PostMessage(Message(4)), 0);
  EXPECT_EQ(mail.PostMessage(Message(2)), 0x12);
  ProcessorMail without_vmbus(false);
  EXPECT_EQ(without_vmbus.PostMessage(Message()), 0x12);
}

TEST(ProcessorMailTest, LastSynicStateAndEachSignalOnceAreTaken) {
  ProcessorMail mail(true);
  mail.SetSynic(1, {.scontrol = 1});
  mail.SetSynic(1, {.scontrol = 0});
  mail.SignalEvent(7, 0);
  mail.SignalEvent(7, 0);
  EXPECT_TRUE(Readable(mail));
  const ProcessorMail::Contents contents = mail.Take();
  EXPECT_EQ(contents.synics, (std::map<uint32_t, SynicState>{{1, {.scontrol = 0}}}));
  EXPECT_EQ(contents.signals, (std::set<std::pair<uint32_t, uint16_t>>{{7, 0}}));
  EXPECT_FALSE(Readable(mail));
}

TEST(ProcessorMailTest, FirstEndingCountsUntilAllIsCleared) {
  ProcessorMail mail(true);
  mail.PostMessage(Message());
  mail.End(Ending::kReset, "reset");
  mail.End(Ending::kFailure, "later");
  EXPECT_EQ(mail.ending()->first, Ending::kReset);
  mail.Clear();
  EXPECT_FALSE(mail.ending());
  EXPECT_TRUE(mail.Take().posts.empty());
}

}  // namespace
}  // namespace vmbfs::test_vmm
