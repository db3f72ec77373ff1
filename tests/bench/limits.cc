#include "tests/bench/limits.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

namespace vmbfs::bench {

namespace {
enum Phase { kAsleep, kAwake, kEnd };
}  // namespace

BareExchange::BareExchange(const CachedFile* file, size_t block_bytes, Cores cores)
    : file_(file), block_bytes_(block_bytes), cores_(cores), shared_(block_bytes) {
  thread_ = std::thread([this] { Serve(); });
}

BareExchange::~BareExchange() {
  phase_ = kEnd;
  phase_.notify_all();
  thread_.join();
}

void BareExchange::Begin() {
  phase_ = kAwake;
  phase_.notify_all();
}

void BareExchange::End() { phase_ = kAsleep; }

bool BareExchange::Exchange(uint64_t offset, std::byte* out) {
  offset_ = offset;
  const uint64_t turn = request_.load(std::memory_order_relaxed) + 1;
  request_.store(turn, std::memory_order_release);
  while (answer_.load(std::memory_order_acquire) != turn) Relax();
  if (file_ != nullptr) std::memcpy(out, shared_.data(), block_bytes_);
  return !read_failed_;
}

void BareExchange::Serve() {
  (void)Pin(cores_.host);
  uint64_t served = 0;
  for (;;) {
    phase_.wait(kAsleep);
    const int phase = phase_.load(std::memory_order_relaxed);
    if (phase == kEnd) return;
    const uint64_t turn = request_.load(std::memory_order_acquire);
    if (turn == served) {
      Relax();
      continue;
    }
    if (file_ != nullptr && !file_->ReadCached(offset_, shared_)) read_failed_ = true;
    served = turn;
    answer_.store(turn, std::memory_order_release);
  }
}

absl::StatusOr<std::unique_ptr<EventPingPong>> EventPingPong::Start(Cores cores) {
  absl::StatusOr<Side> there = MakeSide();
  if (!there.ok()) return there.status();
  absl::StatusOr<Side> back = MakeSide();
  if (!back.ok()) return back.status();
  return std::unique_ptr<EventPingPong>(
      new EventPingPong(*std::move(there), *std::move(back), cores));
}

absl::StatusOr<EventPingPong::Side> EventPingPong::MakeSide() {
  Side side;
  side.event = hyperv::UniqueFd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  side.epoll = hyperv::UniqueFd(::epoll_create1(EPOLL_CLOEXEC));
  epoll_event wanted{};
  wanted.events = EPOLLIN;
  if (side.event.get() < 0 || side.epoll.get() < 0 ||
      ::epoll_ctl(side.epoll.get(), EPOLL_CTL_ADD, side.event.get(), &wanted) != 0) {
    return absl::ErrnoToStatus(errno, "eventfd and epoll");
  }
  return side;
}

EventPingPong::EventPingPong(Side there, Side back, Cores cores)
    : there_(std::move(there)), back_(std::move(back)) {
  thread_ = std::thread([this, cores] {
    (void)Pin(cores.host);
    while (Await(there_) && !end_ && Ring(back_)) {
    }
  });
}

EventPingPong::~EventPingPong() {
  end_ = true;
  Ring(there_);
  thread_.join();
}

bool EventPingPong::Await(const Side& side) {
  epoll_event event;
  int ready;
  do {
    ready = ::epoll_wait(side.epoll.get(), &event, 1, -1);
  } while (ready < 0 && errno == EINTR);
  uint64_t count;
  return ready == 1 && ::read(side.event.get(), &count, sizeof(count)) == sizeof(count);
}

bool EventPingPong::Ring(const Side& side) {
  const uint64_t one = 1;
  return ::write(side.event.get(), &one, sizeof(one)) == sizeof(one);
}

absl::Status EventPingPong::Exchange() {
  if (Ring(there_) && Await(back_)) return absl::OkStatus();
  return absl::ErrnoToStatus(errno, "eventfd ping-pong");
}

}  // namespace vmbfs::bench
