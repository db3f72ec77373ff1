// SQLite's own commits: the least that a durable change of one row costs.

#pragma once

#include <sqlite3.h>

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace vmbfs::bench {

// A database of one table, set up as the daemon's is (core/state): the same
// pragmas, a row of the same columns. Statements are prepared once.
//
// Thread safety: one thread at a time.
class BareCommits {
 public:
  // Makes `file`. Errors: SQLite's.
  static absl::StatusOr<std::unique_ptr<BareCommits>> Make(const std::string& file);

  // One transaction of one statement: inserts the row, or deletes the one that
  // the last call inserted. Errors: SQLite's.
  absl::Status Commit();

 private:
  struct Close {
    void operator()(sqlite3* database) const { sqlite3_close(database); }
    void operator()(sqlite3_stmt* statement) const { sqlite3_finalize(statement); }
  };

  BareCommits() = default;
  absl::Status SetUp();
  absl::Status Error() const;

  std::unique_ptr<sqlite3, Close> database_;
  std::unique_ptr<sqlite3_stmt, Close> insert_;
  std::unique_ptr<sqlite3_stmt, Close> delete_;
  bool inserted_ = false;
};

}  // namespace vmbfs::bench
