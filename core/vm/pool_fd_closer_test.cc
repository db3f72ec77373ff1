#include "core/vm/pool_fd_closer.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <boost/asio/post.hpp>
#include <boost/asio/thread_pool.hpp>
#include <future>
#include <vector>

namespace vmbfs {
namespace {

int NewFd() { return ::open("/dev/null", O_RDONLY | O_CLOEXEC); }
bool IsOpen(int fd) { return ::fcntl(fd, F_GETFD) != -1; }

TEST(PoolFdCloser, DescriptorsAreClosedByThePoolAndNotByTheCaller) {
  boost::asio::thread_pool pool(1);
  std::promise<void> go_on;
  boost::asio::post(pool, [&] { go_on.get_future().wait(); });
  std::vector<int> fds;
  {
    PoolFdCloser closer(pool);
    for (int i = 0; i < 3; ++i) {
      fds.push_back(NewFd());
      closer.Close(fds.back());
    }
  }
  for (const int fd : fds) EXPECT_TRUE(IsOpen(fd));
  go_on.set_value();
  pool.join();
  for (const int fd : fds) EXPECT_FALSE(IsOpen(fd));
}

TEST(PoolFdCloser, HasNoRoomWhileTooManyWaitAndHasItAgainAfterwards) {
  boost::asio::thread_pool pool(1);
  std::promise<void> go_on;
  boost::asio::post(pool, [&] { go_on.get_future().wait(); });
  PoolFdCloser closer(pool);
  for (size_t i = 0; i < PoolFdCloser::kWaitingMax; ++i) {
    EXPECT_TRUE(closer.HasRoom());
    closer.Close(-1);
  }
  EXPECT_FALSE(closer.HasRoom());
  const int fd = NewFd();
  closer.Close(fd);  // is taken all the same
  go_on.set_value();
  pool.join();
  EXPECT_TRUE(closer.HasRoom());
  EXPECT_FALSE(IsOpen(fd));
}

TEST(PoolFdCloser, WhatComesAfterThePoolWasJoinedIsClosedWithThePool) {
  const int fd = NewFd();
  {
    boost::asio::thread_pool pool(1);
    PoolFdCloser closer(pool);
    pool.join();
    closer.Close(fd);
    EXPECT_TRUE(IsOpen(fd));
  }
  EXPECT_FALSE(IsOpen(fd));
}

}  // namespace
}  // namespace vmbfs
