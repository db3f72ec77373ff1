// A LinkServer on a thread of its own, for tests of the link.

#pragma once

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <functional>
#include <future>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "hyperv/link/link_server.h"
#include "hyperv/spin/spinner.h"

namespace vmbfs::hyperv {

// A folder of its own, removed in the end.
class ScratchFolder {
 public:
  ScratchFolder();
  ~ScratchFolder();
  ScratchFolder(const ScratchFolder&) = delete;
  ScratchFolder& operator=(const ScratchFolder&) = delete;
  std::string Path(const std::string& name) const { return folder_ + "/" + name; }

 private:
  std::string folder_;
};

// A listening LinkServer whose strand is a thread.
class LinkHarness {
 public:
  // `options` without a path, on_fault and on_open_refused, which are its own.
  explicit LinkHarness(LinkOptions options = {}, const SpinOptions& spin = {});
  ~LinkHarness();

  // Runs `action` on the strand and returns its result.
  template <typename Action>
  auto Do(Action action) {
    std::packaged_task<decltype(action(*server_))()> task([&] { return action(*server_); });
    auto result = task.get_future();
    boost::asio::post(context_, [&] { task(); });
    return result.get();
  }
  LinkStatus status() {
    return Do([](LinkServer& server) { return server.status(); });
  }
  // Asks again and again; false when it never became true.
  bool WaitForStatus(const std::function<bool(const LinkStatus&)>& predicate);

  // Reasons that on_fault was given.
  std::vector<std::string> faults() {
    return Do([this](LinkServer&) { return faults_; });
  }

  // The same of on_open_refused.
  std::vector<std::string> refusals() {
    return Do([this](LinkServer&) { return refusals_; });
  }

  const std::string& path() const { return path_; }
  // Of the thread, for a second server beside the first.
  boost::asio::any_io_executor strand() { return context_.get_executor(); }

 private:
  ScratchFolder folder_;
  std::string path_ = folder_.Path("vm.sock");
  Spinner spinner_;
  boost::asio::io_context context_;
  boost::asio::executor_work_guard<boost::asio::io_context::executor_type> work_{
      context_.get_executor()};
  std::unique_ptr<LinkServer> server_ =
      std::make_unique<LinkServer>(context_.get_executor(), &spinner_);
  std::vector<std::string> faults_;    // the strand's
  std::vector<std::string> refusals_;  // the strand's
  std::thread thread_;
};

}  // namespace vmbfs::hyperv
