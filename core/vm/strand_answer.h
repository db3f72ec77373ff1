// Asks a VM's strand from another thread, and waits for the answer with a bound.

#pragma once

#include <atomic>
#include <boost/asio/post.hpp>
#include <chrono>
#include <future>
#include <memory>
#include <optional>
#include <type_traits>
#include <utility>

namespace vmbfs {

// A control call waits this long for a VM's strand at most.
inline constexpr std::chrono::seconds kStrandAnswerMax{5};

// What becomes of work that has not begun when its caller gives up waiting.
enum class LateWork {
  kDrop,  // it is never run: questions, and what a caller would have to undo
  kRun,   // it runs when its turn comes: what is already decided and stored
};

// The answer of work that is under way on a strand.
//
// Thread safety: one thread, which is not the strand's.
// Ownership: asker and strand share the state; neither needs the other to live.
template <typename T>
class StrandAnswer {
 public:
  // Waits until `deadline`. nullopt when there is no answer by then: work that
  // has not begun is then treated as its LateWork says; work that has, ends.
  std::optional<T> Wait(std::chrono::steady_clock::time_point deadline) {
    if (answer_.wait_until(deadline) == std::future_status::ready) return answer_.get();
    if (late_ == LateWork::kDrop) state_->claimed.store(true);
    return std::nullopt;
  }

  std::optional<T> Wait() { return Wait(std::chrono::steady_clock::now() + kStrandAnswerMax); }

 private:
  template <typename Executor, typename Function>
  friend auto AskStrand(const Executor& strand, LateWork late, Function work)
      -> StrandAnswer<std::invoke_result_t<Function&>>;

  struct State {
    std::promise<T> promise;
    std::atomic<bool> claimed = false;  // by the strand to run it, or by the waiter to drop it
  };

  explicit StrandAnswer(LateWork late)
      : late_(late), state_(std::make_shared<State>()), answer_(state_->promise.get_future()) {}

  LateWork late_;
  std::shared_ptr<State> state_;
  std::future<T> answer_;
};

// Posts `work` to `strand`. It is run once at most, and destroyed on the strand
// or with the strand's context. It captures by value: the asker's frame may be
// gone when it runs.
template <typename Executor, typename Function>
auto AskStrand(const Executor& strand, LateWork late, Function work)
    -> StrandAnswer<std::invoke_result_t<Function&>> {
  StrandAnswer<std::invoke_result_t<Function&>> answer(late);
  boost::asio::post(strand, [state = answer.state_, work = std::move(work)]() mutable {
    if (!state->claimed.exchange(true)) state->promise.set_value(work());
  });
  return answer;
}

}  // namespace vmbfs
