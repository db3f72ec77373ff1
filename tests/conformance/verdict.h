// What came of one statement.

#pragma once

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace vmbfs::conformance {

// The first failure or skip sticks. All that a statement uses (RawGuest,
// RawChannel) looks here first and does nothing any more once it is settled, so
// that a statement is written as a plain sequence of steps.
//
// Thread safety: none.
class Verdict {
 public:
  enum class Result { kPass, kFail, kSkip };

  void Fail(absl::string_view reason) { Settle(Result::kFail, reason); }
  void Skip(absl::string_view reason) { Settle(Result::kSkip, reason); }

  // Fails with the reason, of pieces as StrCat takes them, unless `condition`.
  template <typename... Pieces>
  bool Expect(bool condition, const Pieces&... reason) {
    if (!condition && open()) Fail(absl::StrCat(reason...));
    return condition;
  }

  // For --verbose.
  void Note(absl::string_view text) { notes_.emplace_back(text); }

  bool open() const { return result_ == Result::kPass; }
  Result result() const { return result_; }
  const std::string& reason() const { return reason_; }
  const std::vector<std::string>& notes() const { return notes_; }

 private:
  void Settle(Result result, absl::string_view reason) {
    if (!open()) return;
    result_ = result;
    reason_ = std::string(reason);
  }

  Result result_ = Result::kPass;
  std::string reason_;
  std::vector<std::string> notes_;
};

}  // namespace vmbfs::conformance
