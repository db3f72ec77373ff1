// PageRanges against a plain parser, and GpadlTable against a map.
//
// Input: a byte that chooses between the two (0xFF, in a short input: a table
// near its limits); then a range count and words, or a sequence of calls.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <map>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "hyperv/fuzz_input/fuzz_input.h"
#include "hyperv/gpadl/gpadl_table.h"
#include "hyperv/gpadl/range_list.h"

namespace vmbfs::hyperv {
namespace {

struct Range {
  uint64_t byte_count;
  uint64_t byte_offset;
  std::vector<uint64_t> page_frames;
};

// shared/specs/vmbus.md 2.8 and the table of 3.7; nullopt: refused.
std::optional<std::vector<Range>> ExpectedRanges(const std::vector<uint64_t>& words,
                                                 uint64_t range_count) {
  if (range_count == 0) return std::nullopt;
  std::vector<Range> ranges;
  size_t at = 0;
  for (uint64_t i = 0; i < range_count; ++i) {
    if (at == words.size()) return std::nullopt;
    Range range{words[at] % (uint64_t{1} << 32), words[at] >> 32, {}};
    ++at;
    if (range.byte_count == 0 || range.byte_offset > 4095) return std::nullopt;
    if (range.byte_count + range.byte_offset + 4095 >= uint64_t{1} << 32) return std::nullopt;
    for (uint64_t byte = 0; byte < range.byte_offset + range.byte_count; byte += 4096) {
      if (at == words.size()) return std::nullopt;
      range.page_frames.push_back(words[at++]);
    }
    ranges.push_back(std::move(range));
  }
  return ranges;
}

void CheckRanges(const PageRanges& ranges, const std::vector<Range>& expected) {
  Require(ranges.range_count() == expected.size(), "all ranges and no more");
  size_t page_count = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    const PageRange range = ranges.range(i);
    Require(range.byte_count == expected[i].byte_count, "byte count of a range");
    Require(range.byte_offset == expected[i].byte_offset, "byte offset of a range");
    Require(std::ranges::equal(range.page_frames, expected[i].page_frames), "its page frames");
    page_count += expected[i].page_frames.size();
  }
  Require(ranges.page_count() == page_count, "page count of the list");
}

void FuzzList(FuzzInput& input) {
  const size_t range_count = input.OneIn(16) ? static_cast<size_t>(input.U64()) : input.U8();
  std::vector<uint64_t> words;
  while (!input.empty()) {
    // Short forms of words, so that small inputs hold many ranges.
    switch (input.Below(4)) {
      case 0:
        words.push_back(input.U64());
        break;
      case 1:
        words.push_back(input.U16() | uint64_t{input.U16()} << 32);
        break;
      default:
        words.push_back(input.U8());
    }
  }
  const auto expected = ExpectedRanges(words, range_count);
  const auto ranges = PageRanges::Parse(words, range_count);
  Require(ranges.ok() == expected.has_value(), "a list is accepted when its ranges are there");
  if (ranges.ok()) CheckRanges(*ranges, *expected);
}

// The table as a map and nothing else.
class TableFuzzer {
 public:
  explicit TableFuzzer(FuzzInput& input) : input_(input) {}

  // `crowded`: from near the table's limits on.
  void Run(bool crowded) {
    if (crowded) CreateMany();
    for (int step = 0; step < kStepsMax && !input_.empty(); ++step) {
      Step();
      CheckTotals();
    }
    table_.EraseAll();
    EraseIf([](const Key&) { return true; });
    CheckTotals();
    for (auto& [key, gpadl] : model_) Require(gpadl.held, "what stays is held");
    while (!model_.empty()) Unhold(model_.begin()->first);
    CheckTotals();
    Require(table_.count() == 0 && table_.page_count() == 0, "in the end nothing is counted");
  }

 private:
  static constexpr int kStepsMax = 256;
  enum class State { kIncomplete, kAccepted, kTearingDown, kAbandoned };
  struct Gpadl {
    State state = State::kIncomplete;
    bool held = false;
    size_t range_count = 0;
    size_t words_expected = 0;
    std::vector<uint64_t> words;
    size_t page_count = 0;
  };
  using Key = std::pair<uint32_t, uint32_t>;

  Key TakeKey() {
    const uint8_t byte = input_.U8();
    return {byte % 3u, byte / 16u};
  }

  void Step() {
    switch (input_.Below(8)) {
      case 0:
      case 1: {
        const Key key = TakeKey();
        const size_t bytes = input_.U16();
        const size_t range_count = input_.U8() % 4u;
        Create(key, bytes, range_count, TakeWords());
        break;
      }
      case 2:
      case 3:
        Append(input_.U8() / 16u, TakeWords());
        break;
      case 4:
        TearDown(TakeKey());
        break;
      case 5:
        Hold(TakeKey());
        break;
      case 6:
        Unhold(TakeKey());
        break;
      default:
        Erase();
    }
  }

  std::vector<uint64_t> TakeWords() {
    // Mostly one whole range: a head of that many pages, and their frames.
    const uint8_t kind = input_.U8();
    const size_t count = kind % 32u;
    std::vector<uint64_t> words;
    if (kind < 128 && count > 0) words.push_back((count - 1) * 4096);
    while (words.size() < count) words.push_back(kind < 192 ? words.size() : input_.U64());
    return words;
  }

  // Towards the limits: ids far from TakeKey's.
  void CreateMany() {
    const size_t count = input_.U16() % 5000u;
    const size_t range_bytes = input_.OneIn(2) ? 16 : input_.U16();
    const uint64_t head = 4096 * (range_bytes / 8 - std::min<size_t>(1, range_bytes / 8));
    std::vector<uint64_t> words(input_.OneIn(2) ? range_bytes / 8 : 1, 7);
    if (!words.empty()) words[0] = head;
    for (size_t i = 0; i < count; ++i) {
      const bool created = Create({3, next_id_++}, range_bytes, 1, words);
      if (!created) return;
    }
  }

  bool Create(const Key& key, size_t bytes, size_t range_count,
              const std::vector<uint64_t>& words) {
    const size_t expected_words = bytes / 8;
    const bool exists = model_.contains(key) || incomplete_.contains(key.second);
    const bool malformed = range_count == 0 || range_count > expected_words / 2;
    const bool full = model_.size() >= 4096 || incomplete_.size() >= 64 ||
                      (!malformed && expected_words - range_count > 65'536 - page_count_);
    const auto progress = table_.Create(key.first, key.second, bytes, range_count, words);
    if (exists || malformed || full) {
      Require(!progress.ok(), "a broken or excessive GPADL is refused");
      const absl::StatusCode code = progress.status().code();
      Require((exists && code == absl::StatusCode::kAlreadyExists) ||
                  (malformed && code == absl::StatusCode::kInvalidArgument) ||
                  (full && code == absl::StatusCode::kResourceExhausted),
              "with a reason that holds");
      return false;
    }
    Gpadl& gpadl = model_[key];
    gpadl.range_count = range_count;
    gpadl.words_expected = expected_words;
    gpadl.page_count = expected_words - range_count;
    page_count_ += gpadl.page_count;
    incomplete_[key.second] = key.first;
    return CheckAdded(key, words, progress);
  }

  void Append(uint32_t gpadl_id, const std::vector<uint64_t>& words) {
    const auto appended = table_.Append(gpadl_id, words);
    const auto incomplete = incomplete_.find(gpadl_id);
    Require(appended.has_value() == (incomplete != incomplete_.end()),
            "a body finds an incomplete GPADL only");
    if (!appended) return;
    Require(appended->channel_id == incomplete->second, "and names its channel");
    CheckAdded({incomplete->second, gpadl_id}, words, appended->progress);
  }

  // true: the GPADL is there.
  bool CheckAdded(const Key& key, const std::vector<uint64_t>& words,
                  const absl::StatusOr<GpadlProgress>& progress) {
    Gpadl& gpadl = model_.at(key);
    for (const uint64_t word : words) {
      if (gpadl.words.size() < gpadl.words_expected) gpadl.words.push_back(word);
    }
    if (gpadl.words.size() < gpadl.words_expected) {
      Require(progress.ok() && *progress == GpadlProgress::kIncomplete, "words are missing");
      return true;
    }
    const auto ranges = ExpectedRanges(gpadl.words, gpadl.range_count);
    if (!ranges) {
      Require(absl::IsInvalidArgument(progress.status()), "broken ranges are refused");
      EraseNow(key);
      return false;
    }
    Require(progress.ok() && *progress == GpadlProgress::kAccepted, "it is whole");
    incomplete_.erase(key.second);
    gpadl.state = State::kAccepted;
    page_count_ -= gpadl.page_count;
    gpadl.page_count = 0;
    for (const Range& range : *ranges) gpadl.page_count += range.page_frames.size();
    page_count_ += gpadl.page_count;
    return true;
  }

  void TearDown(const Key& key) {
    const GpadlTeardown result = table_.Teardown(key.first, key.second);
    const auto entry = model_.find(key);
    if (entry == model_.end() || entry->second.state != State::kAccepted) {
      Require(result == GpadlTeardown::kRefused, "nothing to tear down");
    } else if (entry->second.held) {
      Require(result == GpadlTeardown::kDeferred, "a ring in use waits");
      entry->second.state = State::kTearingDown;
    } else {
      Require(result == GpadlTeardown::kGone, "gone at once");
      EraseNow(key);
    }
  }

  void Hold(const Key& key) {
    for (const auto& [other, gpadl] : model_) {
      if (other.first == key.first && gpadl.held) return;  // one of a channel only
    }
    const PageRanges* ranges = table_.Hold(key.first, key.second);
    const auto entry = model_.find(key);
    const bool accepted = entry != model_.end() && entry->second.state == State::kAccepted;
    Require((ranges != nullptr) == accepted, "only an accepted GPADL is a ring");
    if (!accepted) return;
    entry->second.held = true;
    CheckRanges(*ranges, *ExpectedRanges(entry->second.words, entry->second.range_count));
  }

  void Unhold(Key key) {
    const auto entry = model_.find(key);
    if (entry == model_.end() || !entry->second.held) return;
    entry->second.held = false;
    const State state = entry->second.state;
    Require(table_.Unhold(key.first, key.second) == (state == State::kTearingDown),
            "the guest is told of a teardown that waited");
    if (state != State::kAccepted) EraseNow(key);
  }

  void Erase() {
    const uint32_t channel_id = input_.Below(5);
    if (channel_id == 4) {
      table_.EraseAll();
      EraseIf([](const Key&) { return true; });
      return;
    }
    table_.EraseChannel(channel_id);
    EraseIf([&](const Key& key) { return key.first == channel_id; });
  }

  template <typename Predicate>
  void EraseIf(Predicate predicate) {
    for (auto entry = model_.begin(); entry != model_.end();) {
      const auto each = entry++;
      if (!predicate(each->first)) continue;
      if (each->second.held) {
        each->second.state = State::kAbandoned;
      } else {
        EraseNow(Key(each->first));
      }
    }
  }

  void EraseNow(const Key& key) {
    const auto entry = model_.find(key);
    if (entry->second.state == State::kIncomplete) incomplete_.erase(key.second);
    page_count_ -= entry->second.page_count;
    model_.erase(entry);
  }

  void CheckTotals() const {
    Require(table_.count() == model_.size() && model_.size() <= 4096, "count of GPADLs");
    Require(table_.page_count() == page_count_ && page_count_ <= 65'536, "count of pages");
    Require(incomplete_.size() <= 64, "count of incomplete ones");
    const auto count_of_one = std::distance(model_.lower_bound({1, 0}), model_.lower_bound({2, 0}));
    Require(std::cmp_equal(table_.count_of(1), count_of_one), "count of a channel's");
  }

  FuzzInput& input_;
  GpadlTable table_;
  std::map<Key, Gpadl> model_;
  std::map<uint32_t, uint32_t> incomplete_;  // GPADL id -> channel id
  size_t page_count_ = 0;
  uint32_t next_id_ = 1000;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  FuzzInput input(data, size);
  const uint8_t kind = input.U8();
  if (kind % 2 == 0) {
    FuzzList(input);
  } else {
    // Filling the table takes long: for short inputs only, so that few are kept.
    TableFuzzer(input).Run(/*crowded=*/kind == 0xFF && size <= 10);
  }
  return 0;
}

}  // namespace vmbfs::hyperv
