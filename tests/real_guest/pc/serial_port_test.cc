#include "tests/real_guest/pc/serial_port.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <string>

namespace vmbfs::test_vmm {
namespace {

// Registers and bits as a driver of a 16550A knows them.
class SerialPortTest : public testing::Test {
 protected:
  std::string sent_;
  bool raised_ = false;
  SerialPort port_{[this](char byte) { sent_.push_back(byte); },
                   [this](bool raised) { raised_ = raised; }};
};

TEST_F(SerialPortTest, InputRaisesTheInterruptUntilItIsRead) {
  port_.Input("a");
  EXPECT_FALSE(raised_);  // not enabled
  port_.Write(1, 0x01);
  EXPECT_TRUE(raised_);
  EXPECT_EQ(port_.Read(2) & 0x0f, 0x04);
  EXPECT_EQ(port_.Read(5) & 0x01, 0x01);
  EXPECT_EQ(port_.Read(0), 'a');
  EXPECT_FALSE(raised_);
  EXPECT_EQ(port_.Read(5) & 0x01, 0x00);
  EXPECT_EQ(port_.Read(2) & 0x0f, 0x01);
}

TEST_F(SerialPortTest, TransmitterSaysOnceThatItIsEmpty) {
  port_.Write(1, 0x02);
  EXPECT_TRUE(raised_);
  EXPECT_EQ(port_.Read(2) & 0x0f, 0x02);
  EXPECT_FALSE(raised_);
  port_.Write(0, 'x');
  EXPECT_EQ(sent_, "x");
  EXPECT_TRUE(raised_);
}

TEST_F(SerialPortTest, DivisorIsNoData) {
  port_.Input("a");
  port_.Write(3, 0x83);
  port_.Write(0, 'x');
  port_.Write(1, 0x01);
  EXPECT_EQ(port_.Read(0), 0);
  port_.Write(3, 0x03);
  EXPECT_EQ(sent_, "");
  EXPECT_FALSE(raised_);  // no interrupt was enabled
  EXPECT_EQ(port_.Read(0), 'a');
}

TEST_F(SerialPortTest, InputBeyondItsBoundIsLost) {
  EXPECT_TRUE(port_.HasRoom());
  port_.Input(std::string(SerialPort::kInputBytesMax + 10, 'a'));
  EXPECT_FALSE(port_.HasRoom());
  size_t taken = 0;
  for (; (port_.Read(5) & 0x01) != 0; ++taken) port_.Read(0);
  EXPECT_EQ(taken, SerialPort::kInputBytesMax);
}

}  // namespace
}  // namespace vmbfs::test_vmm
