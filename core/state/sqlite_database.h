// SQLite in our terms: statuses, and statements that are always prepared.

#pragma once

#include <sqlite3.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace vmbfs::state {

// One statement, its values bound in the order of its question marks.
//
// Thread safety: that of its database. Ownership: ends before its database.
// Errors: the first one is kept, and returned by Step.
class Statement {
 public:
  Statement(sqlite3* database, const char* sql);

  Statement& Bind(std::string_view text);
  Statement& Bind(int64_t number);
  Statement& Bind(std::optional<int64_t> number);

  // true: a row is there; false: the statement is done.
  // Errors: kAlreadyExists (unique key), kNotFound (foreign key),
  // kResourceExhausted (disk full), kInternal.
  absl::StatusOr<bool> Step();

  // Of the row that Step found; nullopt for NULL or another type.
  std::optional<std::string> Text(int column) const;
  std::optional<int64_t> Integer(int column) const;
  bool IsNull(int column) const;

 private:
  struct Finalize {
    void operator()(sqlite3_stmt* statement) const { sqlite3_finalize(statement); }
  };

  sqlite3* const database_;
  std::unique_ptr<sqlite3_stmt, Finalize> statement_;
  int next_parameter_ = 1;
  int error_ = SQLITE_OK;
};

// Thread safety: one thread at a time.
class Database {
 public:
  // Opens or makes the file, with WAL, full sync and foreign keys.
  static absl::StatusOr<std::unique_ptr<Database>> Open(const std::filesystem::path& file);
  ~Database();
  Database(const Database&) = delete;
  Database& operator=(const Database&) = delete;

  Statement Prepare(const char* sql) { return Statement(database_, sql); }
  // Runs statements of this program's own text that have no parameters.
  absl::Status Run(const char* sql);
  // Rows that the last statement changed.
  int64_t changes() const { return sqlite3_changes64(database_); }

 private:
  explicit Database(sqlite3* database) : database_(database) {}

  absl::Status SetUp();

  sqlite3* const database_;
};

// A transaction that is rolled back unless Commit succeeds.
class Transaction {
 public:
  explicit Transaction(Database& database);
  ~Transaction();
  Transaction(const Transaction&) = delete;
  Transaction& operator=(const Transaction&) = delete;

  // Why it could not begin; nothing else may be done then.
  const absl::Status& begun() const { return begun_; }
  // On success the changes are on the disk.
  absl::Status Commit();

 private:
  Database& database_;
  const absl::Status begun_;
  bool committed_ = false;
};

}  // namespace vmbfs::state
