// The GPADLs of one VMBus connection: lists of guest pages that the guest
// announced, by channel and id, through their life.
//
//   incomplete -> accepted -> (tearing down ->) gone
//
// Trust: ids, counts and words are the guest's. Rules: shared/specs/vmbus.md
// sections 2.8 and 3.7.

#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "hyperv/gpadl/range_list.h"

namespace vmbfs::hyperv {

// How far a GPADL is after one of its messages.
enum class GpadlProgress { kIncomplete, kAccepted };

enum class GpadlTeardown {
  kRefused,   // no accepted GPADL of this channel and id
  kDeferred,  // it is a ring in use; Unhold ends it
  kGone,
};

// Thread safety: one strand.
// Bounds: the constants below; at most 65,535 bytes of words for each
// incomplete GPADL.
class GpadlTable {
 public:
  static constexpr size_t kGpadlsMax = 4096;
  static constexpr size_t kIncompleteMax = 64;
  static constexpr size_t kPageFramesMax = 65'536;

  // Begins a GPADL with what its header says: `range_buffer_bytes` of range
  // data in all, of which `words` are the first (words beyond are ignored).
  //
  // Errors (the table is as before; the guest is told of a failure):
  //   kAlreadyExists      the channel has this id, or an incomplete GPADL of
  //                       any channel has.
  //   kInvalidArgument    the ranges are malformed.
  //   kResourceExhausted  a bound is reached.
  absl::StatusOr<GpadlProgress> Create(uint32_t channel_id, uint32_t gpadl_id,
                                       size_t range_buffer_bytes, size_t range_count,
                                       std::span<const uint64_t> words);

  // Adds a body's words to the incomplete GPADL `gpadl_id`.
  struct Appended {
    uint32_t channel_id = 0;
    absl::StatusOr<GpadlProgress> progress;  // kInvalidArgument: malformed, gone
  };
  // nullopt: no such GPADL is incomplete.
  std::optional<Appended> Append(uint32_t gpadl_id, std::span<const uint64_t> words);

  // The guest wants it back.
  GpadlTeardown Teardown(uint32_t channel_id, uint32_t gpadl_id);

  // Marks an accepted GPADL as a ring in use, so that it outlives Teardown and
  // Erase until Unhold; null when there is none. The result lives until then.
  // REQUIRES: the channel holds no other.
  const PageRanges* Hold(uint32_t channel_id, uint32_t gpadl_id);

  // The ring is no longer in use. Returns true when a teardown waited for that:
  // the GPADL is gone and the guest is to be told.
  // REQUIRES: held.
  bool Unhold(uint32_t channel_id, uint32_t gpadl_id);

  // Forgets all GPADLs of a channel, or all; one that is held is forgotten
  // without a word when Unhold comes.
  void EraseChannel(uint32_t channel_id);
  void EraseAll();

  size_t count() const { return gpadls_.size(); }
  size_t count_of(uint32_t channel_id) const;
  // Page frames held, or expected by incomplete ones.
  size_t page_count() const { return page_count_; }

 private:
  enum class State { kIncomplete, kAccepted, kTearingDown, kAbandoned };

  struct Gpadl {
    State state = State::kIncomplete;
    bool held = false;
    size_t page_count = 0;  // its part of page_count_
    // While incomplete.
    size_t range_count = 0;
    size_t words_expected = 0;
    std::vector<uint64_t> words;
    // From then on.
    std::optional<PageRanges> ranges;
  };

  using Key = std::pair<uint32_t, uint32_t>;  // channel id, GPADL id
  using Map = std::map<Key, Gpadl>;

  absl::Status CheckNew(const Key& key, size_t range_count, size_t words_expected) const;
  absl::StatusOr<GpadlProgress> Add(Map::iterator entry, std::span<const uint64_t> words);
  Map::iterator Erase(Map::iterator entry);
  // Erases the entry, or abandons it when it is held; returns the next one.
  Map::iterator Forget(Map::iterator entry);

  Map gpadls_;
  std::map<uint32_t, uint32_t> incomplete_;  // GPADL id -> channel id
  size_t page_count_ = 0;
};

}  // namespace vmbfs::hyperv
