#include "hyperv/file_descriptor/unique_fd.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <memory>
#include <utility>
#include <vector>

namespace vmbfs::hyperv {
namespace {

class NotingCloser final : public FdCloser {
 public:
  void Close(int fd) override { closed.push_back(fd); }
  bool HasRoom() const override { return true; }

  std::vector<int> closed;
};

int NewFd() { return ::open("/dev/null", O_RDONLY | O_CLOEXEC); }
bool IsOpen(int fd) { return ::fcntl(fd, F_GETFD) != -1; }

TEST(UniqueFd, ClosesOnceInPlaceWithoutACloser) {
  const int number = NewFd();
  {
    UniqueFd first(number);
    UniqueFd second = std::move(first);
    EXPECT_FALSE(first);
    EXPECT_EQ(second.get(), number);
    EXPECT_TRUE(IsOpen(number));
  }
  EXPECT_FALSE(IsOpen(number));
}

TEST(UniqueFd, CloserTravelsWithItsDescriptorAndGetsItOnce) {
  const auto closer = std::make_shared<NotingCloser>();
  const int given = NewFd();
  const int own = NewFd();
  {
    UniqueFd constructed = UniqueFd(given, closer);
    UniqueFd assigned(own);
    assigned = std::move(constructed);
    EXPECT_FALSE(IsOpen(own));  // in place
    EXPECT_TRUE(closer->closed.empty());
  }
  EXPECT_EQ(closer->closed, std::vector<int>{given});
  EXPECT_TRUE(IsOpen(given));  // the closer's business now
  ::close(given);
}

TEST(UniqueFd, WhatResetBringsIsClosedInPlace) {
  const auto closer = std::make_shared<NotingCloser>();
  const int given = NewFd();
  const int own = NewFd();
  {
    UniqueFd fd(given, closer);
    fd.reset(own);
  }
  EXPECT_EQ(closer->closed, std::vector<int>{given});
  EXPECT_FALSE(IsOpen(own));
  ::close(given);
}

TEST(UniqueFd, ReleasedDescriptorIsNobodysToClose) {
  const auto closer = std::make_shared<NotingCloser>();
  const int given = NewFd();
  {
    UniqueFd fd(given, closer);
    EXPECT_EQ(fd.release(), given);
  }
  EXPECT_TRUE(closer->closed.empty());
  EXPECT_TRUE(IsOpen(given));
  ::close(given);
}

}  // namespace
}  // namespace vmbfs::hyperv
